"""Random requests for an `Engine`, and the ways in which it may run them: no text may change by these.

A package that makes models fast runs them with its own kernels.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from torch import Tensor, arange

from lolama_core.generation.engine import Engine, Prepared
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.logprobs import TokenLogprobs
from lolama_core.generation.request import Emission, Generation
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM, LogitsProcessor
from lolama_core.protocols import Tokenizer as TokenizerProtocol
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.pages import PAGE, position_bytes
from lolama_core.testing import tiny
from lolama_core.testing.drafts import EagerSpeculation
from lolama_core.text.tokenizer import Tokenizer

VOCABULARY = 406
"""Ids of a model that runs these requests, and of the tokenizer of `make_tokenizer`."""

CONTEXT = 160
"""Positions of its context."""

DEFAULTS = GenerationDefaults(eos_ids=frozenset(range(0, 400, 40)))
"""What it should have, so that some texts end by themselves."""


def make_tokenizer() -> Tokenizer:
    """A tokenizer of bytes and what is common in a sentence."""
    text = "Once upon a time there was the quick brown fox that jumps over lazy dogs in the park."
    vocabulary, merges = tiny.learn_bytes([text] * 3, VOCABULARY)
    names = [*vocabulary, *(f"<|{number}|>" for number in range(VOCABULARY - len(vocabulary)))]
    return Tokenizer(tiny.byte_level({name: id for id, name in enumerate(names)}, merges))


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


class Thirds:
    """A `Constraint`: each token has the remainder by 3 that follows from those before it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def mask(self) -> Tensor:
        """(V,) bool: the tokens that may come next."""
        return arange(VOCABULARY) % 3 == sum(self.tokens) % 3

    def accept(self, token: int) -> None:
        """Note what was chosen."""
        self.tokens.append(token)

    def rollback(self, count: int) -> None:
        """Take back the last tokens."""
        del self.tokens[len(self.tokens) - count :]


def _none() -> list[LogitsProcessor]:
    return []


def _in_place() -> list[LogitsProcessor]:
    return [_not_the_last]


def _not_the_last(input_ids: Tensor, scores: Tensor) -> Tensor:
    scores[:, input_ids[0, -1]] -= 3
    return scores


def _counting() -> list[LogitsProcessor]:
    return [_EachThird()]


class _EachThird:
    """A processor that counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        return scores.roll(1, dims=-1) if self.calls % 3 == 0 else scores


@dataclass(frozen=True)
class Job:
    """What is asked of an engine; processors and constraints with a state are made anew for each run.

    Attributes:
        ids: The prompt.
        config: Settings.
        processors: Makes its logits processors.
        constrained: Whether `Thirds` says which tokens may come.
        n: How many continuations there are.
    """

    ids: list[int]
    config: GenerationConfig
    processors: Callable[[], list[LogitsProcessor]]
    constrained: bool
    n: int

    def prepare(self, engine: Engine[str]) -> list[Prepared]:
        """The requests of it, one for each continuation."""
        return engine.prepare(
            [self.ids],
            [self.config],
            self.processors(),
            n=self.n,
            constraint=Thirds() if self.constrained else None,
        )


def make_jobs(count: int, seed: int) -> list[Job]:
    """Random jobs, greedy and seeded. Many begin alike, and some fill the context."""
    draw = random.Random(seed)

    def some(length: int) -> list[int]:
        return [draw.randrange(400) for _ in range(length)]

    beginnings = [some(length) for length in (9, 32, 45, 100)]
    jobs: list[Job] = []
    for _ in range(count):
        ids = some(draw.choice([1, 2, 8, 31, 33]))
        chance = draw.random()
        if chance < 0.6:
            ids = draw.choice(beginnings) + ids
        elif jobs and chance < 0.7:
            ids = draw.choice(jobs).ids
        elif chance < 0.75:
            ids = some(draw.choice([CONTEXT - 3, CONTEXT - 1, CONTEXT]))
        length = draw.choice([0, 1, 1, 2, 2, 3, 5, 9, 12, 20, 70])
        settings: dict[str, Any] = {"max_new_tokens": length, "ignore_eos": length > 20}
        if draw.random() < 0.5:
            config = GenerationConfig.greedy(**settings)
        else:
            config = GenerationConfig.sampling(**settings, seed=draw.randrange(99))
            choices: list[dict[str, Any]] = [
                {"top_k": 9, "temperature": 0.7},
                {"min_p": 0.05},
                {"xtc_probability": 0.5, "xtc_threshold": 0.02},
            ]
            config = config.with_settings(**draw.choice(choices))
        others: list[dict[str, Any]] = [
            {"stop": ("e", " th")},
            {"stop": ("zzz",), "ignore_eos": True},
            {"logprobs": 2},
            {"prompt_logprobs": 1},
            {"prompt_logprobs": 0, "logprobs": 0},
            {"repetition_penalty": 1.4, "presence_penalty": 0.5},
            {"min_new_tokens": 4, "no_repeat_ngram_size": 2},
            {},
        ]
        config = config.with_settings(**draw.choice(others)).with_settings(**draw.choice(others))
        processors = draw.choice([_none, _none, _in_place, _counting])
        constrained = draw.random() < 0.15
        # Neither a constraint nor a processor with a state serves several texts.
        alone = constrained or processors is _counting
        n = 3 if not alone and draw.random() < 0.1 else 1
        jobs.append(Job(ids, config, processors, constrained, n))
    return jobs


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
