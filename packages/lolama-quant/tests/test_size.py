"""Bytes, each tensor once."""

import torch
from torch import nn

from lolama_quant import get_model_size_mb


def test_counts_tied_weights_once_and_buffers_too() -> None:
    module = nn.Sequential(nn.Linear(500, 500, bias=False), nn.Linear(500, 500, bias=False))
    assert get_model_size_mb(module) == 2.0
    module[1].weight = module[0].weight
    assert get_model_size_mb(module) == 1.0
    module.register_buffer("table", torch.zeros(250_000, dtype=torch.bfloat16))
    assert get_model_size_mb(module) == 1.5
