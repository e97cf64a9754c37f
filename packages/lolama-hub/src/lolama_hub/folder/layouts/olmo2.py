"""OLMo 2: norms behind attention and feed-forward, and one of queries and keys over all heads."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

_POST_NORMS = {
    "layers.{n}.attention_post_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "layers.{n}.ffn_post_norm.weight": "model.layers.{n}.post_feedforward_layernorm.weight",
}
_PRE_NORMS = ("layers.{n}.attention_norm.weight", "layers.{n}.ffn_norm.weight")
TENSORS = {
    name: published
    for name, published in (llama.TENSORS | llama.QK_NORMS | _POST_NORMS).items()
    if name not in _PRE_NORMS
}

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {"rms_norm_eps": 1e-5}
FIXED: dict[str, JSON] = {"mlp_bias": False, "norms": "after", "qk_norm": "width"}

OLMO2 = TextLayout(
    model_type="olmo2", models="OLMo 2", tensors=TENSORS, defaults=DEFAULTS, fixed=FIXED
)
