"""How fast a model runs here: what ``lolama bench`` measures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import lolama_core
from lolama.steps import Steps, counted
from lolama_core import GenerationConfig
from lolama_core.protocols import CausalLM, Tokenizer

if TYPE_CHECKING:
    from lolama_core import TextGenerator

_TEXT = "Once upon a time there was a dog that lived by the sea. "


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure of several runs: its median, the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One generation, in seconds.

    Attributes:
        first_token: Seconds from the prompt to the first new token.
        rest: Seconds from there to the last token.
    """

    first_token: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What several generations of the same size took.

    Attributes:
        prompt_tokens, new_tokens: The tokens of each run.
        runs: The runs in order, without the one before them, which warmed up.
    """

    prompt_tokens: int
    new_tokens: int
    runs: tuple[Run, ...]

    @property
    def first_token(self) -> Spread:
        """Seconds to the first token."""
        return _spread([run.first_token for run in self.runs])

    @property
    def prefill(self) -> Spread:
        """Tokens of the prompt per second; choosing the first new token is in the time."""
        return _spread([self.prompt_tokens / run.first_token for run in self.runs])

    @property
    def decode(self) -> Spread | None:
        """New tokens per second after the first; None if there is no other."""
        if self.new_tokens < 2:
            return None
        return _spread([(self.new_tokens - 1) / run.rest for run in self.runs])


def prompt_of(tokenizer: Tokenizer, count: int) -> list[int]:
    """``count`` ids of plain English."""
    ids = list(tokenizer.encode_ids(_TEXT))
    while len(ids) < count:
        ids += tokenizer.encode_ids(_TEXT, add_special_tokens=False)
    return ids[:count]


def measure(
    model: CausalLM,
    ids: Sequence[int],
    *,
    new_tokens: int,
    repeats: int,
    steps: Steps | None = None,
) -> Speed:
    """Generate the same text ``repeats`` times, after once to warm up.

    Greedy, past end tokens, and without anything kept from one run to the next.

    Args:
        model: What runs.
        ids: The prompt.
        new_tokens: At least 1.
        repeats: At least 1.
        steps: Is told of runs between them, and so takes no time of theirs.

    Raises:
        UsageError: if the context is too short for it.
        ModelError: if the model's logits are not finite.
        ResourceError: if memory runs out.
    """
    config = GenerationConfig(
        max_new_tokens=new_tokens, temperature=0, repetition_penalty=1, ignore_eos=True
    )
    generator = lolama_core.TextGenerator(model)
    runs = [_run(generator, ids, config) for _ in counted(range(1 + repeats), 1 + repeats, steps)]
    return Speed(prompt_tokens=len(ids), new_tokens=new_tokens, runs=tuple(runs[1:]))


def _run(generator: TextGenerator[None], ids: Sequence[int], config: GenerationConfig) -> Run:
    started = time.perf_counter()
    tokens = iter(generator.generate_stream(ids, config))
    next(tokens)
    first = time.perf_counter()
    for _ in tokens:
        pass
    ended = time.perf_counter()
    return Run(first_token=first - started, rest=ended - first)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=median(values), low=min(values), high=max(values))
