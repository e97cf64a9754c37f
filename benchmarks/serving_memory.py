"""Bytes of keys and values while requests run that name no limit: a part of `benchmarks.serving`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import SHAPES, cache_bytes
from lolama import Engine, GenerationConfig
from lolama_core import Llama, LlamaConfig, slower_blocks
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.runtime.pages import PAGE

END = 2
"""The end token."""


def until(length: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A processor that ends a text when it has ``length`` tokens, those of its prompt included."""

    def end(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, END] = -torch.inf
        if ids.shape[1] >= length:
            scores[:, END] = torch.finfo(scores.dtype).max
        return scores

    return end


def cache_shaped() -> Llama:
    """A model with the cache of TinyLlama's shape that is else as small as can be.

    Bytes of keys and values depend on layers, heads and their width alone. Its weights are of bfloat16 and
    its norms of float32, as a loaded model's are, so that one call of a native kernel runs its blocks.
    """
    shape = SHAPES["tinyllama"]
    config = LlamaConfig(
        vocab_size=512,
        d_model=64,
        num_heads=4,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        num_layers=shape.num_layers,
        hidden_dim=64,
        max_seq_len=4096,
    )
    torch.manual_seed(0)
    model = Llama(config).eval().requires_grad_(False).bfloat16()
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.float()
    model.generation_defaults = GenerationDefaults(eos_ids=frozenset({END}))
    return model


def memory() -> dict[str, Any]:
    """64 requests end at 20 to 2,000 positions each, and nothing tells their engine so."""
    model = cache_shaped()
    reasons = slower_blocks(model)
    draw, engine = random.Random(0), Engine(model, rows=64)
    position = cache_bytes(model.config, 1)
    config = GenerationConfig.greedy(max_new_tokens=model.max_seq_len)
    lengths: dict[int, int] = {}
    ends: dict[int, int] = {}
    for _ in range(64):
        prompt = [draw.randrange(3, 512) for _ in range(draw.randint(8, 18))]
        end = draw.randint(20, 2000)
        ticket = engine.submit(prompt, config, logits_processors=[until(end)])
        lengths[ticket], ends[ticket] = len(prompt), end
    worst, most, most_kept, steps = 0.0, 0, 0, 0
    while engine.busy:
        for ticket, emission in engine.step():
            lengths[ticket] += 1
            if emission.finish_reason:
                # The end token has no position.
                assert lengths.pop(ticket) - 1 == ends[ticket], "a text ends where it is to end"
        engine.collect()
        steps += 1
        used = engine.used_cache_bytes
        if lengths:
            over = used - len(lengths) * PAGE * position
            worst = max(worst, over / (sum(lengths.values()) * position))
        else:
            assert not used
        most, most_kept = max(most, used), max(most_kept, engine.kept_cache_bytes)
    assert engine.memory is not None
    engine.memory.reclaim(0)
    return {
        "blocks that run one by one": reasons,
        "steps": steps,
        "most of (bytes - a page a row) / bytes of the positions": worst,
        "most bytes of unfinished requests": most,
        "most bytes kept": most_kept,
        "bytes kept once they were asked back": engine.kept_cache_bytes,
        "bytes if each row had memory for its context": 64 * model.config.max_seq_len * position,
    }
