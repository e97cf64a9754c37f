"""config.json of a Hugging Face folder → the canonical ``model`` block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.layouts import LAYOUTS, TextLayout
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.other_formats import refuse_quantized
from lolama_hub.folder.rope_config import read_rope

_BIASES = ("attention_bias", "mlp_bias")


def find_layout(path: Path, values: Mapping[str, JSON]) -> TextLayout:
    """The table for the architecture that config.json names.

    ``architectures`` and ``auto_map`` are never read: what a folder's own code would do is of no interest.

    Raises:
        ModelError: naming an architecture that is not supported, and those that are.
    """
    supported = ", ".join(sorted([*LAYOUTS, *VISION_LAYOUTS]))
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(
            str(path), "the field model_type is missing or not text", f"supported are {supported}"
        )
    if model_type not in LAYOUTS:
        raise ModelError(
            str(path),
            f"model_type {shown(model_type)} is not supported",
            f"use a model of one of the types {supported}",
        )
    return LAYOUTS[model_type]


def read_model(path: Path, values: Mapping[str, JSON], layout: TextLayout) -> dict[str, JSON]:
    """The canonical ``model`` block; its keys are the fields of ``LlamaConfig``.

    A key that is absent means what the same file means to transformers 5; null is not the same as absent.
    Whether the sizes fit the machine, and each other, is checked once more by the model's family.

    Raises:
        ModelError: naming the field that is missing, impossible or not supported.
    """
    config = Fields(path, values, layout.defaults)
    _refuse_unsupported(config)
    d_model = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads")
    num_layers = config.integer("num_hidden_layers")
    # transformers reads null as "one for each query head" everywhere; absent differs by architecture.
    num_kv_heads = config.optional_integer("num_key_value_heads") or num_heads
    if num_heads % num_kv_heads:
        raise config.refuse(
            "num_key_value_heads", f"a divisor of num_attention_heads ({num_heads})"
        )
    rope = read_rope(config)
    return {
        "vocab_size": config.integer("vocab_size"),
        "d_model": d_model,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "num_layers": num_layers,
        "hidden_dim": config.integer("intermediate_size"),
        "max_seq_len": rope.max_seq_len,
        "rope_base": rope.base,
        "eps": config.number("rms_norm_eps", low=0.0, high=1.0),
        "tie_word_embeddings": config.boolean("tie_word_embeddings"),
        "head_dim": _head_dim(config, d_model, num_heads),
        "rope_scaling": rope.scaling,
        **{name: config.boolean(name) for name in _BIASES if name not in layout.fixed},
        **layout.windows(config, num_layers, rope.max_seq_len),
        **layout.fixed,
    }


def _head_dim(config: Fields, d_model: int, num_heads: int) -> int:
    head_dim = config.optional_integer("head_dim")
    if head_dim is None:
        if d_model % num_heads:
            raise config.refuse("num_attention_heads", f"a divisor of hidden_size ({d_model})")
        head_dim = d_model // num_heads
    if head_dim % 2:
        raise ModelError(
            str(config.path),
            f"a head is {head_dim} wide, expected an even number, for rotary pairs",
            "correct head_dim, hidden_size or num_attention_heads",
        )
    return head_dim


def _refuse_unsupported(config: Fields) -> None:
    """What would load and then compute something else."""
    if config.get("hidden_act") not in ("silu", "swish"):
        raise config.refuse("hidden_act", "silu")
    refuse_quantized(config.path, config.values)
