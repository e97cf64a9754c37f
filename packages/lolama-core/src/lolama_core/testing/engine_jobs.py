"""Random requests for an `Engine`, with all kinds of settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, arange

from lolama_core.generation.engine import Engine, Prepared
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols import LogitsProcessor
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.testing import tiny
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
