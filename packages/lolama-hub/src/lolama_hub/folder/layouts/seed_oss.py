"""Seed-OSS: LLaMA with biases of q, k and v, and one of o that is said apart."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 524288,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": True,
    "attention_out_bias": False,
}


def switches(config: Fields) -> dict[str, JSON]:
    """Which of the four projections have biases.

    Raises:
        ModelError: for a bias of o alone.
    """
    output = config.boolean("attention_out_bias")
    if not config.boolean("attention_bias"):
        if output:
            raise config.refuse("attention_out_bias", "false, where attention_bias is false")
        return {"attention_bias": False}
    return {"attention_bias": True if output else "qkv"}


SEED_OSS = TextLayout(
    model_type="seed_oss",
    models="Seed-OSS",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    switches=switches,
)
