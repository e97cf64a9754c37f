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
from lolama_hub.folder.relatives import nearest_types

# Lists are made with an entry for each, before a `LlamaConfig` would refuse more.
_MOST_LAYERS = 1 << 10
_WIDEST_HEAD = 1 << 12

_BIASES = ("attention_bias", "mlp_bias")
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Their names in transformers → the canonical ones."""


def find_layout(path: Path, values: Mapping[str, JSON]) -> TextLayout:
    """The table for the architecture that config.json names.

    ``architectures`` and ``auto_map`` are never read: what a folder's own code would do is of no interest.

    Raises:
        ModelError: naming an architecture that is not supported, and the nearest that are.
    """
    remedy = "docs/families.md lists the types that are supported"
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(str(path), "the field model_type is missing or not text", remedy)
    if model_type not in LAYOUTS:
        near = nearest_types(model_type, [*LAYOUTS, *VISION_LAYOUTS])
        raise ModelError(
            str(path),
            f"model_type {shown(model_type)} is not supported",
            f"the nearest that are: {', '.join(near)}; {remedy}",
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
    refuse_quantized(config.path, config.values)
    d_model = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads")
    num_layers = config.integer("num_hidden_layers", high=_MOST_LAYERS)
    # transformers reads null as "one for each query head" everywhere; absent differs by architecture.
    num_kv_heads = config.optional_integer("num_key_value_heads") or num_heads
    if num_heads % num_kv_heads:
        raise config.refuse(
            "num_key_value_heads", f"a divisor of num_attention_heads ({num_heads})"
        )
    rope, head_dim = layout.rope(config), _head_dim(config, d_model, num_heads)
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
        "head_dim": head_dim,
        "rope_scaling": rope.scaling,
        **{name: config.boolean(name) for name in _BIASES if name not in layout.fixed},
        **_rotary_dim(config, head_dim, rope.part),
        **rope.switches,
        **_activation(config, layout.activation),
        **layout.windows(config, num_layers, rope.max_seq_len),
        **layout.switches(config),
        **layout.fixed,
    }


def _head_dim(config: Fields, d_model: int, num_heads: int) -> int:
    head_dim = config.optional_integer("head_dim")
    if head_dim is None:
        if d_model % num_heads:
            raise config.refuse("num_attention_heads", f"a divisor of hidden_size ({d_model})")
        head_dim = d_model // num_heads
    if head_dim % 2 or head_dim > _WIDEST_HEAD:
        raise ModelError(
            str(config.path),
            f"a head is {head_dim} wide, expected an even number up to {_WIDEST_HEAD}, for rotary pairs",
            "correct head_dim, hidden_size or num_attention_heads",
        )
    return head_dim


def _rotary_dim(config: Fields, head_dim: int, part: float) -> dict[str, JSON]:
    """How much of a head is rotated, if it is not all of it."""
    rotary = int(head_dim * part)
    if rotary % 2 or (head_dim - rotary) % 2:
        raise config.refuse("partial_rotary_factor", f"an even number of a head's {head_dim}")
    return {} if rotary == head_dim else {"rotary_dim": rotary}


def _activation(config: Fields, key: str) -> dict[str, JSON]:
    """The activation of the feed-forward network, if it is not LLaMA's."""
    name = config.get(key)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise config.refuse(key, "one of " + ", ".join(_ACTIVATIONS))
    return {} if _ACTIVATIONS[name] == "silu" else {"activation": _ACTIVATIONS[name]}
