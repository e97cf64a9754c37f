"""Qwen2 and Qwen2.5: LLaMA's tensors, with biases on q, k and v only."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def sliding_window(config: Fields, num_layers: int, max_seq_len: int) -> int | None:
    """The window, if all layers share it.

    ``sliding_window`` counts only where ``use_sliding_window`` is true, and then for the layers from
    ``max_window_layers`` on, unless ``layer_types`` lists each layer's kind.

    Raises:
        ModelError: for layers of two kinds, where the window is shorter than the longest sequence.
    """
    window = None
    if config.boolean("use_sliding_window"):
        window = config.optional_integer("sliding_window")
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.integer("max_window_layers", low=0)
        sliding = max(0, num_layers - first) if window is not None else 0
    else:
        known = ("full_attention", "sliding_attention")
        if (
            not isinstance(kinds, list)
            or len(kinds) != num_layers
            or any(k not in known for k in kinds)
        ):
            raise config.refuse(
                "layer_types", f"one of {' or '.join(known)} for each of {num_layers} layers"
            )
        sliding = kinds.count("sliding_attention")
        if sliding and window is None:
            raise config.refuse(
                "sliding_window", "a window in use, for the layers of layer_types that slide"
            )
    if window is None or sliding == 0:
        return None
    if sliding == num_layers:
        return window
    if window >= max_seq_len:
        return None  # the window never closes, so both kinds of layer are the same
    name = "max_window_layers" if kinds is None else "layer_types"
    raise config.refuse(
        name,
        f"one kind of attention in all layers ({sliding} of {num_layers} would slide: not supported)",
    )


QWEN2 = TextLayout(
    model_type="qwen2",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    fixed={"attention_bias": "qkv", "mlp_bias": False},
    sliding_window=sliding_window,
)
