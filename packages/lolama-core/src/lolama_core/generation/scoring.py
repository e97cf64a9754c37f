"""How probable a text is, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_core.generation.engine import Engine
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.logprobs import PromptLogprobs
from lolama_core.generation.request import PromptReader
from lolama_core.generation.request_factory import too_long
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.generation import Generation
from lolama_core.runtime.int8_cache import CacheDtype

_READ = GenerationConfig.greedy(max_new_tokens=0)


def score(model: CausalLM, ids: Sequence[int], cache_dtype: CacheDtype | None = None) -> Tensor:
    """See `TextGenerator.score`: (T - 1,) log-probabilities of T ids that the model knows."""
    if len(ids) < 2:
        raise UsageError("input_ids", "scoring needs at least two tokens", "")
    if len(ids) > model.max_seq_len:
        raise too_long(len(ids), model.max_seq_len)
    # The last token is only scored, never seen, which matters where the length does (dynamic RoPE).
    read = PromptLogprobs(ids, 0)
    _read(model, ids[:-1], read, cache_dtype=cache_dtype)
    return torch.tensor([token.logprob for token in read.tokens], dtype=torch.float32, device="cpu")


def prompt_logits(
    model: CausalLM,
    ids: Sequence[int],
    chunk: int | None = None,
    *,
    cache_dtype: CacheDtype | None = None,
) -> Tensor:
    """(T, V) float32 on the CPU: the logits of every position of a text.

    Args:
        model: Reads it.
        ids: T token ids.
        chunk: Positions that run in one pass; None for 512.
        cache_dtype: What keys and values are stored in, see `Engine`.

    Raises:
        UsageError, ModelError, ResourceError: as `TextGenerator.score`.
    """
    pieces: list[Tensor] = []
    _read(model, ids, lambda logits, first: pieces.append(logits.cpu()), chunk, cache_dtype)
    return torch.cat(pieces)


def _read(
    model: CausalLM,
    ids: Sequence[int],
    reader: PromptReader,
    chunk: int | None = None,
    cache_dtype: CacheDtype | None = None,
) -> None:
    """Run a text, and give its logits to a reader."""
    engine = Engine(model, rows=1, prefill_chunk=chunk, cache_dtype=cache_dtype)
    [(request, prompt)] = engine.prepare([ids], [_READ])
    request.prompt_reader = reader
    engine.add((request, prompt))
    while engine.busy:
        engine.step()
    [result] = engine.collect().values()
    if not isinstance(result, Generation):
        raise result
