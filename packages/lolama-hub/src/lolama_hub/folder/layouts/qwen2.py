"""Qwen2 and Qwen2.5: LLaMA's tensors, with biases on q, k and v only."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import optional_window, window_fields

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def windows(config: Fields, num_layers: int, max_seq_len: int) -> dict[str, JSON]:
    """The window and the layers that have it.

    ``sliding_window`` counts only where ``use_sliding_window`` is true, and then for the layers from
    ``max_window_layers`` on, unless ``layer_types`` lists each layer's kind.

    Raises:
        ModelError: for layers that slide without a window.
    """
    window, sliding = optional_window(
        config,
        num_layers,
        lambda: list(range(config.integer("max_window_layers", low=0), num_layers)),
    )
    if window is not None and len(sliding) < num_layers and window >= max_seq_len:
        window = None  # it never closes, so both kinds of layers are the same
    return window_fields(window, sliding, num_layers)


QWEN2 = TextLayout(
    model_type="qwen2",
    models="Qwen2, Qwen2.5, DeepSeek-R1 distills",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    fixed={"attention_bias": "qkv", "mlp_bias": False},
    windows=windows,
)
