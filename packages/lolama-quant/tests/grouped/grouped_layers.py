"""Layers with grouped weights: random ones, and those of a dense model in any format."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.grouped.codes import GroupedRows, pack
from lolama_quant.grouped.linear import GroupedEmbedding, GroupedLinear, GroupedWeight

Layer = TypeVar("Layer", bound=GroupedWeight)


def random_linear(
    outputs: int, inputs: int, form: str, *, bias: bool = False, seed: int = 0
) -> GroupedLinear:
    return fill(GroupedLinear(inputs, outputs, form, bias=bias), seed)


def random_embedding(outputs: int, inputs: int, form: str) -> GroupedEmbedding:
    return fill(GroupedEmbedding(outputs, inputs, form))


def fill(layer: Layer, seed: int = 0) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, Any] = dict(layer.named_parameters())
    for name, parameter in parameters.items():
        size = parameter.shape
        if parameter.is_floating_point():
            made = torch.randn(size, generator=generator) / 64
        elif parameter.dtype == torch.int8:
            made = torch.randint(-128, 128, size, generator=generator)
        else:
            top = 64 if name == "group_scale" else 256
            made = torch.randint(0, top, size, generator=generator)
        setattr(layer, name, nn.Parameter(made.to(parameter.dtype), requires_grad=False))
    return layer


def mix_formats_(module: nn.Module) -> None:
    """Replace the linears inside ``module``, but for ``lm_head``, by ones of all formats in turn."""
    linears = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith("lm_head")
    }
    for place, (name, linear) in enumerate(linears.items()):
        parent, _, leaf = name.rpartition(".")
        form = list(FORMATS)[place % len(FORMATS)]
        setattr(module.get_submodule(parent), leaf, in_format(linear, form))


def in_format(linear: nn.Linear, form: str) -> GroupedLinear:
    """A linear of nearly the same weight: each group has a scale of its own, found in the plainest way."""
    kind, (outputs, inputs) = FORMATS[form], linear.weight.shape
    size, blocks = kind.block // kind.group, -(-inputs // kind.block)
    dense = linear.weight.detach().float()
    groups = nn.functional.pad(dense, (0, -inputs % kind.group)).view(outputs, -1, kind.group)
    low = -groups.amin(-1).clamp(max=0) if kind.has_minimums else torch.zeros(groups.shape[:2])
    step = (groups + low[..., None]).abs().amax(-1) / (15 if kind.bits == 4 else 127)

    def stored(of_groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, G) → whole numbers of groups, scales of blocks in float16, and what both stand for."""
        if size == 1:
            half = of_groups.clamp(min=1e-6).half()
            return half, half, half.float()
        levels = 63 if kind.has_minimums else 127
        padded = nn.functional.pad(of_groups, (0, blocks * size - of_groups.shape[1]))
        half = (padded.view(outputs, blocks, size).amax(-1) / levels).clamp(min=1e-6).half()
        wide = half.float().repeat_interleave(size, 1)[:, : of_groups.shape[1]]
        whole = (of_groups / wide).round().clamp(0, levels)
        return whole, half, wide * whole

    def spread(of_groups: torch.Tensor) -> torch.Tensor:
        return of_groups.repeat_interleave(kind.group, 1)[:, :inputs]

    scale, block_scale, steps = stored(step)
    minimum, block_minimum, offsets = stored(low)
    codes = (dense + kind.has_minimums * spread(offsets)) / spread(steps).clamp(min=1e-9)
    limits = (0, 15) if kind.bits == 4 else (-127, 127)
    dtype = torch.uint8 if kind.has_minimums else torch.int8
    rows = GroupedRows(
        codes.round().clamp(*limits).to(dtype),
        block_scale,
        scale.to(dtype) if size > 1 else None,
        block_minimum if kind.has_minimums else None,
        minimum.to(dtype) if size > 1 and kind.has_minimums else None,
    )
    made = GroupedLinear(inputs, outputs, form, bias=linear.bias is not None)
    for part, tensor in pack(rows, kind).items():
        setattr(made, part, nn.Parameter(tensor, requires_grad=False))
    if linear.bias is not None:
        made.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return made
