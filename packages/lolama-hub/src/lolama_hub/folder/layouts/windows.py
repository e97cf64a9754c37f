"""Attention windows of an architecture: of all layers, or of those that ``layer_types`` lists."""

from __future__ import annotations

from collections.abc import Sequence

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"


def listed_layers(config: Fields, num_layers: int) -> list[int] | None:
    """The layers that ``layer_types`` says slide; None if it is absent or null.

    Raises:
        ModelError: unless it has one of the two kinds for each layer.
    """
    kinds = config.get("layer_types")
    if kinds is None:
        return None
    if (
        not isinstance(kinds, list)
        or len(kinds) != num_layers
        or any(kind not in (FULL, SLIDING) for kind in kinds)
    ):
        raise config.refuse(
            "layer_types", f"one of {FULL} or {SLIDING} for each of {num_layers} layers"
        )
    return [layer for layer, kind in enumerate(kinds) if kind == SLIDING]


def window_fields(window: int | None, sliding: Sequence[int], num_layers: int) -> dict[str, JSON]:
    """The canonical fields for a window that the layers ``sliding`` have."""
    if window is None or not sliding:
        return {"sliding_window": None}
    if len(sliding) == num_layers:
        return {"sliding_window": window}
    return {"sliding_window": window, "sliding_layers": list(sliding)}
