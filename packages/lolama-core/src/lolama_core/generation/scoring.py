"""How probable a text is, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_core.generation.request_factory import too_long
from lolama_core.model.device import inference, memory_errors
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.runner import runner_of

_CHUNK = 512
"""Positions that run in one pass: activations and logits of all positions of a long text need not fit."""


def score(model: CausalLM, ids: Sequence[int]) -> Tensor:
    """See `TextGenerator.score`: (T - 1,) log-probabilities of T ids that the model knows."""
    if len(ids) < 2:
        raise UsageError("input_ids", "scoring needs at least two tokens", "")
    if len(ids) > model.max_seq_len:
        raise too_long(len(ids), model.max_seq_len)
    tokens = torch.tensor([ids], device=model.device)
    scores = []
    with memory_errors(model.device), inference(model.device):
        runner = runner_of(model)
        cache = runner.make_cache(1, len(ids))
        for chunk in torch.split(tokens[:, :-1], _CHUNK, dim=1):
            width, start = chunk.shape[1], cache.lengths[0]
            logits = runner.forward_embeds(runner.embed(chunk), cache, logits="all")
            cache.advance([width])
            following = tokens[:, start + 1 : start + 1 + width, None]
            scores.append(logits.log_softmax(-1).gather(-1, following)[0, :, 0].cpu())
    return torch.cat(scores)
