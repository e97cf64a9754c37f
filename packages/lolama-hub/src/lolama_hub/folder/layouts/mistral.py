"""Mistral: LLaMA's tensors, without biases, with a sliding window unless config.json says null."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}


def windows(config: Fields, _num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """Version 0.1 has one of 4096; from 0.2 on the key is there and null, which means none.

    Raises:
        ModelError: if ``layer_types`` asks for anything but the same attention in every layer. The
            architecture has no such field and transformers would ignore it.
    """
    window = config.optional_integer("sliding_window")
    expected = "full_attention" if window is None else "sliding_attention"
    kinds = config.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or any(k != expected for k in kinds)):
        raise config.refuse("layer_types", f"{expected} in every layer, as sliding_window says")
    return {"sliding_window": window}


MISTRAL = TextLayout(
    model_type="mistral",
    models="Mistral 7B, Nemo, Small",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False},
    windows=windows,
)
