"""Every way to multiply grouped weights, beside float64 products of what the weights stand for.

What is not at hand is in native/check.c: it has the bits of portable C. Experts are in cpu/test_mixtures.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.cpu import grouped_linear
from lolama_quant.cpu.library import INT8_INSTRUCTION_SETS, NativeLibrary, native_library
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.grouped.product import blockwise_product

sys.path.insert(0, str(Path(__file__).parent))
from grouped_layers import random_linear

NATIVE = native_library()

# Activations are rounded to steps of max / 127, once where the largest is up to 8 x their root mean square
# (HEAVY_BLOCK in native/grouped.h). The mean error of a step is 1 / sqrt(12) of it. A fifth more by chance.
WORST_BYTES = 1.2 * 8 / 127 / 12**0.5


def usable_sets() -> list[str]:
    if isinstance(NATIVE, str):
        return []
    best = INT8_INSTRUCTION_SETS[NATIVE.int8_instruction_set]
    others = {"AVX-512 VNNI": ["AVX2"], "NEON dot product": ["NEON"]}
    return list(dict.fromkeys(["portable", *others.get(best, []), best]))


Product = Callable[[Tensor, GroupedLinear], Tensor]


def by_torch(x: Tensor, layer: GroupedLinear) -> Tensor:
    form = layer.form.name
    return blockwise_product(x, layer.weight, layer.group_scale, layer.block_scale, form)


def by_library(library: NativeLibrary, x: Tensor, layer: GroupedLinear) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped_linear, "native_library", lambda: library)
        parts = layer.weight, layer.group_scale, layer.block_scale
        return grouped_linear.native_grouped(x, *parts, layer.form.name)


def limited(name: str) -> NativeLibrary:
    assert isinstance(NATIVE, NativeLibrary)
    number = INT8_INSTRUCTION_SETS.index(name)
    return dataclasses.replace(NATIVE, int8_instruction_set=number)


@pytest.fixture(params=["torch", *usable_sets()])
def product(request: pytest.FixtureRequest) -> Product:
    if request.param == "torch":
        return by_torch
    return partial(by_library, limited(request.param))


def most_error(x: Tensor, layer: GroupedLinear) -> Tensor:
    """(M, K) → (M, N): half a step of each activation, and what float32 adds to it."""
    levels = 127 if layer.form.bits == 4 else 2000
    wide, blocks = layer.dequantized().double().abs(), -(-x.shape[1] // 256)
    padding = (0, -x.shape[1] % 256)
    steps = F.pad(x.abs(), padding).view(-1, blocks, 256).amax(-1).double() / levels
    weights = F.pad(wide, padding).view(-1, blocks, 256).sum(-1)
    return 0.501 * steps @ weights.T + 1e-5 * x.abs().double() @ wide.T


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (7, 31), (33, 256), (20, 300), (50, 1088)])
@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_products_are_right(
    product: Product, form: str, outputs: int, inputs: int, rows: int
) -> None:
    x, layer = torch.randn(rows, inputs), random_linear(outputs, inputs, form, seed=rows)
    x[:, ::100] *= 30  # heavy blocks
    found, wanted = product(x, layer), x.double() @ layer.dequantized().double().T
    error = (found - wanted).abs()
    assert (error <= most_error(x, layer)).all()
    assert error.norm() <= (WORST_BYTES if layer.form.bits == 4 else 5e-3) * wanted.norm()
    if product is not by_torch:
        assert torch.equal(found, by_library(limited("portable"), x, layer))
        assert torch.equal(found[-1:], product(x[-1:], layer))
