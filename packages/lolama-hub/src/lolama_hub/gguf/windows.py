"""Layers that are not all alike: which have a window, as metadata say or llama.cpp knows, and their θ."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts.windows import FULL, SLIDING
from lolama_hub.gguf.metadata import GGUFModel, read_rope

MOST_LAYERS_LISTED = 1 << 16


def windows(model: GGUFModel, interval: int, default: int | None = None) -> dict[str, JSON]:
    """The window, and which layers have it: all but the last of each ``interval`` if metadata do not say.

    Args:
        model: The model.
        interval: How many layers there are from one that sees all to the next.
        default: The window where metadata have none.

    Raises:
        ModelError: for a pattern that is none.
    """
    name, pattern = "attention.sliding_window", "attention.sliding_window_pattern"
    layers = model.integer("block_count", high=MOST_LAYERS_LISTED)
    size = default if model.get(name) is None else model.integer(name, low=0)
    if not size:
        none: list[JSON] = [FULL] * layers
        return {"sliding_window": None, "layer_types": none}
    listed = model.get(pattern)
    if isinstance(listed, list):
        if len(listed) != layers or any(one not in (0, 1) for one in listed):
            raise model.refuse(pattern, f"true or false for each of {layers} layers")
        slides = [bool(one) for one in listed]
    else:
        every = interval if listed is None else model.integer(pattern)
        slides = [(layer + 1) % every != 0 for layer in range(layers)]
    kinds: list[JSON] = [SLIDING if one else FULL for one in slides]
    return {"sliding_window": size, "layer_types": kinds}


def rope_of_two_kinds(model: GGUFModel, theta: float | None = None) -> dict[str, JSON]:
    """Rotary settings of layers that see all, and θ of those that have a window, which is not stretched."""
    full = read_rope(model)
    base = full["rope_theta"]
    assert isinstance(base, float)
    sliding = model.number_or("rope.freq_base_swa", base if theta is None else theta)
    return {"rope_parameters": {FULL: full, SLIDING: {"rope_theta": sliding}}}


def query_scalar(model: GGUFModel, layers_of_27b: int) -> float:
    """The square of what queries are divided by: the width of a head, but in the 27B model.

    llama.cpp knows that by the number of its layers.
    """
    if model.integer("block_count") == layers_of_27b:
        return model.integer("embedding_length") / model.same("attention.head_count")
    return float(model.head_dim)
