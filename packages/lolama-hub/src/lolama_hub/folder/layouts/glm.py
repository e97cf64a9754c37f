"""GLM-4: half of each head rotated, in pairs that stand side by side, and gate and up in one tensor."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.rope_config import Rope, read_rope

_GATE_UP = "model.layers.{n}.mlp.gate_up_proj.weight"
_TENSORS = llama.TENSORS | {
    "layers.{n}.feed_forward.w_gate.weight": _GATE_UP,
    "layers.{n}.feed_forward.w_up.weight": _GATE_UP,
}
_FOUR_NORMS = _TENSORS | {
    "layers.{n}.attention_post_norm.weight": "model.layers.{n}.post_self_attn_layernorm.weight",
    "layers.{n}.ffn_post_norm.weight": "model.layers.{n}.post_mlp_layernorm.weight",
}

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "attention_bias": True,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1.5625e-07,
}


def switches(config: Fields) -> dict[str, JSON]:
    """Whether q, k and v have biases; o has none."""
    return {"attention_bias": "qkv" if config.boolean("attention_bias") else False}


def rope(config: Fields) -> Rope:
    """Rotary settings, of a part of each head."""
    return read_rope(config, partial=True)


GLM = TextLayout(
    model_type="glm",
    models="GLM-4 9B",
    tensors=_TENSORS,
    defaults=DEFAULTS,
    fixed={"mlp_bias": False},
    switches=switches,
    rope=rope,
    interleaved=True,
)

GLM4 = TextLayout(
    model_type="glm4",
    models="GLM-4-0414, GLM-Z1",
    tensors=_FOUR_NORMS,
    defaults=DEFAULTS,
    fixed={"mlp_bias": False, "norms": "both"},
    switches=switches,
    rope=rope,
    interleaved=True,
)
