"""SmolLM3: LLaMA's tensors, with no rotation in every fourth layer."""

from __future__ import annotations

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import optional_window, window_fields

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "rope_theta": 2000000.0,
    "use_sliding_window": False,
    "no_rope_layer_interval": 4,
}


def unrotated_layers(config: Fields, num_layers: int) -> list[int]:
    """The layers that do not rotate: those with a 0 in ``no_rope_layers``, else each of an interval's last.

    Raises:
        ModelError: unless the list has 0 or 1 for each layer.
    """
    listed = config.get("no_rope_layers")
    if listed is None:
        interval = config.integer("no_rope_layer_interval")
        return [layer for layer in range(num_layers) if (layer + 1) % interval == 0]
    if (
        not isinstance(listed, list)
        or len(listed) < num_layers
        or not all(is_integer(each, 0, 1) for each in listed)
    ):
        raise config.refuse("no_rope_layers", f"0 or 1 for each of {num_layers} layers")
    return [layer for layer in range(num_layers) if listed[layer] == 0]


def switches(config: Fields) -> dict[str, JSON]:
    """Which layers do not rotate."""
    unrotated = unrotated_layers(config, config.integer("num_hidden_layers"))
    return {"unrotated_layers": list(unrotated)} if unrotated else {}


def windows(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window, of the layers that do not rotate unless ``layer_types`` lists each layer's kind.

    Raises:
        ModelError: for layers that slide without a window.
    """
    window, sliding = optional_window(
        config, num_layers, lambda: unrotated_layers(config, num_layers)
    )
    return window_fields(window, sliding, num_layers)


SMOLLM3 = TextLayout(
    model_type="smollm3",
    models="SmolLM3",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    windows=windows,
    switches=switches,
)
