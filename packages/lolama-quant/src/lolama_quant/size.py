"""How much memory a model's tensors take."""

from __future__ import annotations

from itertools import chain

from torch import nn


def get_model_size_mb(module: nn.Module) -> float:
    """Parameters and buffers of ``module`` in MB (10^6 bytes); what is tied counts once.

    Example:
        >>> get_model_size_mb(nn.Linear(1000, 1000, bias=False))
        4.0
    """
    tensors = chain(module.parameters(), module.buffers())
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values()) / 1e6
