"""The ways in which an `Engine` may run requests: no text may change by these.

A package that makes models fast runs them with its own kernels.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from lolama_core.generation.engine import Engine
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols import Tokenizer as TokenizerProtocol
from lolama_core.protocols.generation import Emission, Generation, TokenLogprobs
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.pages import PAGE, position_bytes
from lolama_core.testing.drafts import EagerSpeculation
from lolama_core.testing.engine_jobs import CONTEXT, Job


@dataclass(frozen=True)
class Way:
    """A way in which an engine may run texts. Whatever it may do for speed has its place here.

    Attributes:
        rows: Requests that run at the same time.
        chunk: Positions of prompts in a step; None for what the engine chooses.
        little_memory: Whether there is a page more than a row of the whole context needs, so that rows are
            put back.
        draft: What guesses tokens that rows try ahead, 0 to 8 by chance: the text, or the model itself.
        cache_dtype: What keys and values are stored in; see `Engine`.
    """

    rows: int
    chunk: int | None = None
    little_memory: bool = False
    draft: Literal["off", "lookup", "itself"] = "off"
    cache_dtype: CacheDtype | None = None

    def engine(self, model: CausalLM, tokenizer: TokenizerProtocol) -> Engine[str]:
        """An engine that runs ``model`` so. Where it chooses a chunk, chance does: its clock is random."""
        position = position_bytes(own_cache(model.make_cache(1, 1)), self.cache_dtype)
        engine = Engine(
            model,
            tokenizer,
            rows=self.rows,
            prefill_chunk=self.chunk,
            cache_bytes=(CONTEXT + PAGE) * position if self.little_memory else None,
            cache_dtype=self.cache_dtype,
            draft=self._drafts(model),
        )
        engine.costs.clock = _random_clock(self.rows)
        return engine

    def _drafts(self, model: CausalLM) -> Literal["off"] | EagerSpeculation:
        if self.draft == "off":
            return "off"
        return EagerSpeculation(model if self.draft == "itself" else "lookup", self.rows)


ALONE = Way(1)
"""One text after another."""

FEW_WAYS = [
    Way(1, 64, draft="lookup"),
    Way(2, 7, little_memory=True),
    Way(5, None, little_memory=True, draft="lookup"),
    Way(16, 1, draft="itself"),
    Way(16, 64, little_memory=True, draft="itself"),
    Way(64, draft="lookup"),
]
"""For an ordinary run."""

_DRAFTS: list[Literal["off", "lookup", "itself"]] = ["off", "lookup", "itself"]
WAYS = [
    Way(rows, chunk, little, draft)
    for rows, chunk, little, draft in itertools.product(
        (1, 2, 5, 16, 64), (None, 1, 7, 64), (False, True), _DRAFTS
    )
]
"""For a long one: each number of rows with each chunk, with and without enough memory, or drafts."""


def _random_clock(seed: int) -> Callable[[], float]:
    """Seconds that pass by chance."""
    draw, now = random.Random(seed), 0.0

    def clock() -> float:
        nonlocal now
        now += draw.choice([0.001, 0.002, 0.05])
        return now

    return clock


def run_jobs(
    engine: Engine[str], jobs: Sequence[Job], neighbors: Sequence[Job] = (), *, seed: int = 0
) -> list[list[Generation[str]]]:
    """Run jobs that come in any order, among neighbors of which some are canceled.

    Returns:
        The results of each job, whose emissions add up to them.
    """
    draw = random.Random(seed)
    pending = [*enumerate(jobs), *((-1, job) for job in neighbors)]
    draw.shuffle(pending)
    tickets: dict[int, list[int]] = {}
    emissions: dict[int, list[Emission]] = {}
    results: dict[int, Any] = {}
    canceled: list[int] = []
    while pending or engine.busy:
        for _ in range(draw.choice([0, 1, 2, 30])):
            if pending:
                place, job = pending.pop()
                added = [engine.add(each) for each in job.prepare(engine)]
                if place >= 0:
                    tickets[place] = added
                else:
                    canceled += added
        for ticket in canceled:
            if draw.random() < 0.1:
                engine.cancel(ticket)
        for ticket, emission in engine.step():
            emissions.setdefault(ticket, []).append(emission)
        results |= engine.collect()
        most = None if engine.memory is None else engine.memory._max_bytes
        assert most is None or engine.used_cache_bytes <= most
    assert engine.used_cache_bytes == 0
    for ticket, result in results.items():
        assert isinstance(result, Generation), result
        check_sum(emissions.get(ticket, []), result)
    return [[results[each] for each in tickets[place]] for place in range(len(jobs))]


def check_logprobs(
    found: Sequence[TokenLogprobs] | None, expected: Sequence[TokenLogprobs] | None
) -> None:
    """Log-probabilities of a text are those that were expected, to the rounding of float32."""
    if expected is None or found is None:
        assert found is expected is None
        return
    assert [one.id for one in found] == [one.id for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5, rel=0)
        values = [[value for _, value in each.best] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=0)


def check_sum(emissions: Sequence[Emission], result: Generation[str]) -> None:
    """Emissions add up to the result, and the last alone tells a reason."""
    assert sum((each.ids for each in emissions), ()) == result.ids
    assert "".join(each.text for each in emissions) == result.text
    assert [each.finish_reason for each in emissions[:-1]] == [None] * len(emissions[:-1])
    if emissions:
        assert emissions[-1].finish_reason == result.finish_reason
    if result.logprobs is not None:
        assert sum((each.logprobs for each in emissions), ()) == result.logprobs


def content(result: Generation[str]) -> Generation[str]:
    """``result`` without what depends on the others that ran."""
    return replace(result, cached_tokens=0)
