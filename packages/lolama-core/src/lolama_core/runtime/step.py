"""One pass of a generation: a prompt, or the last token, through the model and into the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lolama_core.model.device import inference
from lolama_core.protocols import CausalLM, KVCache

Decode: TypeAlias = Callable[[int], Tensor]
"""The last token → logits (1, V) of what follows, and one more position in the cache."""


def run(model: CausalLM, embeds: Tensor, cache: KVCache) -> Tensor:
    """(1, T, D) → logits (1, V), and T more positions in the cache."""
    with inference(model.device):
        logits = model.forward_embeds(embeds, cache)
        cache.advance([embeds.shape[1]])
    return logits


def decode(model: CausalLM, token: int, cache: KVCache) -> Tensor:
    """The last token → logits (1, V) of what follows, and one more position in the cache."""
    return run(model, model.embed(torch.tensor([[token]], device=model.device)), cache)
