"""Ministral 8B: Mistral, with a window in the layers that ``layer_types`` lists."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama, mistral
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import listed_layers, window_fields


def windows(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window of all layers, or of those that ``layer_types`` lists.

    Raises:
        ModelError: for layers that slide without a window.
    """
    window, sliding = config.optional_integer("sliding_window"), listed_layers(config, num_layers)
    if sliding is None:
        sliding = list(range(num_layers))
    elif sliding and window is None:
        raise config.refuse("sliding_window", "a window, for the layers of layer_types that slide")
    return window_fields(window, sliding, num_layers)


MINISTRAL = TextLayout(
    model_type="ministral",
    models="Ministral 8B",
    tensors=llama.TENSORS,
    defaults=mistral.DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False},
    windows=windows,
)
