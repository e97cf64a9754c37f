"""Layers that are not all alike: what each of them sees, and how it rotates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor, nn

from lolama_core.model.config import LlamaConfig
from lolama_core.model.masks import PassPlan, plan_pass
from lolama_core.protocols import CacheSlots, KVCache

Angles: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""cos and sin for each kind of layer: of most models there is one."""


def config_of_layer(config: LlamaConfig, layer: int) -> LlamaConfig:
    """The configuration of a model in which every layer is like this one.

    Layers of equal configurations are of one kind: they share masks and angles.
    """
    off = config.switches_off()
    if off >= {"sliding_layers", "sliding_rope_base", "unrotated_layers"}:
        return config
    changes: dict[str, Any] = {
        "sliding_layers": None,
        "sliding_rope_base": None,
        "unrotated_layers": (),
    }
    sliding = config.sliding_layers
    if config.sliding_window is None or (sliding is not None and layer not in sliding):
        changes["sliding_window"] = None
    elif config.sliding_rope_base is not None:
        changes |= {"rope_base": config.sliding_rope_base, "rope_scaling": None}
    if layer in config.unrotated_layers:
        changes |= {"rotary_dim": 0, "rope_scaling": None}  # an angle of 0 turns nothing
    return replace(config, **changes)


def plan_kinds(
    x: Tensor,
    angles: Angles,
    slots: CacheSlots,
    cache: KVCache | None,
    kinds: Sequence[LlamaConfig],
    layers: Iterable[nn.Module],
) -> PassPlan:
    """`plan_pass` for each kind of layer, as one plan."""
    plan, *others = (
        plan_pass(x, turned, slots, cache, kind.sliding_window, layers)
        for turned, kind in zip(angles, kinds, strict=True)
    )
    return replace(plan, others=tuple(others)) if others else plan
