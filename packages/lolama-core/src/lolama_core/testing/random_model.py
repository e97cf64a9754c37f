"""A small model without a trivial weight: an error in any part of it changes its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lolama_core.model.config import LlamaConfig
from lolama_core.model.llama import Llama
from lolama_core.testing.decoder_kernel import SHAPE


def random_llama(**shape: Any) -> Llama:
    """A float32 model without gradients, the same one for the same fields of `LlamaConfig`."""
    torch.manual_seed(3)
    model = Llama(LlamaConfig(**{**SHAPE, **shape})).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model


def random_ids(model: Llama, length: int) -> Tensor:
    """(1, length) int64 ids, the same for the same vocabulary."""
    return torch.randint(0, model.vocab_size, (1, length), generator=torch.manual_seed(5))
