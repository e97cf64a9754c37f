"""ERNIE 4.5, dense: LLaMA whose rotated pairs stand side by side, with all biases or none."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "use_bias": False,
}


def switches(config: Fields) -> dict[str, JSON]:
    """Whether linears have biases."""
    return dict.fromkeys(("attention_bias", "mlp_bias"), config.boolean("use_bias"))


ERNIE4_5 = TextLayout(
    model_type="ernie4_5",
    models="ERNIE 4.5, dense",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    switches=switches,
    interleaved=True,
)
