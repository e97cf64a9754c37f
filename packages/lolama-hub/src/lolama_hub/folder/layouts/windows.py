"""Attention windows of an architecture: of all layers, or of those that ``layer_types`` lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.rope_config import Rope, read_rope

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


def optional_window(
    config: Fields, num_layers: int, usual: Callable[[], list[int]]
) -> tuple[int | None, list[int]]:
    """The window, where ``use_sliding_window`` is true, and the layers that have it.

    Args:
        config: config.json.
        num_layers: How many layers there are.
        usual: The layers, where ``layer_types`` lists no kinds.

    Raises:
        ModelError: for layers that slide without a window.
    """
    window = None
    if config.boolean("use_sliding_window"):
        window = config.optional_integer("sliding_window")
    sliding = listed_layers(config, num_layers)
    if sliding is None:
        return window, usual()
    if sliding and window is None:
        raise config.refuse(
            "sliding_window", "a window in use, for the layers of layer_types that slide"
        )
    return window, sliding


def every_nth_is_full(config: Fields, num_layers: int, interval: int) -> dict[str, JSON]:
    """The window of ``layer_types``, or of all layers but the last of each ``interval``.

    Raises:
        ModelError: for a window that is missing or impossible.
    """
    sliding = listed_layers(config, num_layers)
    if sliding is None:
        sliding = [layer for layer in range(num_layers) if (layer + 1) % interval]
    return window_fields(config.integer("sliding_window") if sliding else None, sliding, num_layers)


def rope_of_two_kinds(config: Fields, *, sliding_theta: float) -> Rope:
    """Rotary settings of layers that see all, and θ of those that have a window.

    ``rope_parameters`` has a block for each kind of layer. In older files ``rope_theta`` and ``rope_scaling``
    are of the layers that see all.

    Args:
        config: config.json. Its default for ``rope_theta`` is that of the layers that see all.
        sliding_theta: What θ of layers that have a window is where no block says it.

    Raises:
        ModelError: naming the field; also for a stretched rotation in layers that have a window.
    """
    both = config.get("rope_parameters")
    blocks = both if isinstance(both, dict) else {}
    if both is not None and not blocks.keys() <= {FULL, SLIDING}:
        raise config.refuse("rope_parameters", f"an object with {FULL} and {SLIDING}")
    values = {name: value for name, value in config.values.items() if name != "rope_parameters"}
    if blocks.get(FULL) is not None:
        values["rope_parameters"] = blocks[FULL]
    full = read_rope(Fields(config.path, values, config.defaults))
    values = {"max_position_embeddings": config.get("max_position_embeddings")}
    values["rope_parameters"] = blocks.get(SLIDING)
    sliding = read_rope(Fields(config.path, values, {"rope_theta": sliding_theta}))
    if sliding.scaling is not None:
        raise config.refuse("rope_parameters", f"{SLIDING} of the type default")
    if sliding.base == full.base and full.scaling is None:
        return full
    return replace(full, switches={"sliding_rope_base": sliding.base})
