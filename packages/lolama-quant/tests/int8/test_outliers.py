"""Outlier columns are the ones with the largest activations."""

import torch
from torch import nn

from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.int8.outliers import outlier_columns

SCHEME = QuantizationScheme(name="int8", skipped=("2",))


def test_finds_the_columns_with_the_largest_activations() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    x = torch.full((3, 5, 8), 0.1)
    x[0, 0, 6], x[2, 4, 1] = -9.0, 5.0

    def run() -> None:
        module(x[:1])
        module(x[1:])

    assert outlier_columns(module, SCHEME, 2, run) == {"0": (1, 6)}
    assert not module[0]._forward_pre_hooks


def test_never_more_than_half_of_them() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    found = outlier_columns(module, SCHEME, 100, lambda: module(torch.randn(2, 4)))
    assert {name: len(columns) for name, columns in found.items()} == {"0": 2}
