"""The stand-in models of a server, with engines that wait for a test, tell what they do, and fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from served_demo import DemoHost, DemoModel
from torch import Tensor

from lolama_core import Engine
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.generation import Emission, Generation
from lolama_core.protocols.serving import ServedName

PATIENCE = 60.0
"""Seconds that anything may take: more than it ever takes, whatever else the machine does."""

BROKEN = "zebra"
"""A prompt with this word gets logits that are no numbers."""


class Gate:
    """Lets a thread through as often as a test says; at first always."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._permits: int | None = None
        self._held = 0

    def pass_through(self) -> None:
        """Wait until one may go through."""
        with self._changed:
            self._held += 1
            self._changed.notify_all()
            opened = self._changed.wait_for(lambda: self._permits != 0, PATIENCE)
            self._held -= 1
            assert opened, "nobody opens it"
            if self._permits is not None:
                self._permits -= 1

    @property
    def holds(self) -> bool:
        """Whether somebody waits."""
        with self._changed:
            return self._held > 0

    def close(self) -> None:
        """Let nobody through from now on."""
        with self._changed:
            self._permits = 0

    def allow(self, count: int) -> None:
        """Let through that many, if they come."""
        with self._changed:
            assert self._permits is not None
            self._permits += count
            self._changed.notify_all()

    def let(self, count: int) -> None:
        """Let through that many, and wait until the next one waits."""
        with self._changed:
            self.allow(count)
            done = self._changed.wait_for(lambda: self._permits == 0 and self._held > 0, PATIENCE)
            assert done, "nobody comes"

    def open(self) -> None:
        """Let everybody through."""
        with self._changed:
            self._permits = None
            self._changed.notify_all()

    def wait_until_held(self) -> None:
        """Wait until somebody waits."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held > 0, PATIENCE), "nobody comes"


class Step(NamedTuple):
    """What a step of an engine did.

    Attributes:
        emitted: Tickets whose token was chosen.
        progress: Ticket → positions of its prompt that have been run.
    """

    emitted: tuple[int, ...]
    progress: dict[int, int]


@dataclass
class FaultyHost(DemoHost):
    """Serves the built-in model; see `DemoHost`.

    Attributes:
        steps: Held by each step of an engine.
        loading: Held by each loading of a model.
        taken: What each step did, in order.
        failures: Raised by the next steps, one each.
        load_failures: Raised by the next loadings, one each.
        gone: Names that cannot be found any more.
        sizes: Name → bytes of its weights.
        canceled: Tickets that were taken out.
        finds: Name → how often it was looked for.
        chunk: Positions of prompts that a step runs at most; None for the engine's own number.
        forced: A word of a prompt → the ids that its answer has.
    """

    steps: Gate = field(default_factory=Gate)
    loading: Gate = field(default_factory=Gate)
    taken: list[Step] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    load_failures: list[Exception] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    canceled: list[int] = field(default_factory=list)
    finds: Counter[str] = field(default_factory=Counter)
    chunk: int | None = None
    forced: dict[str, list[int]] = field(default_factory=dict)

    def find(self, name: str) -> ServedName:
        """See `ModelHost`."""
        self.finds[name] += 1
        if name in self.gone:
            raise UsageError("model", "has vanished", "download it again")
        found = super().find(name)
        size = self.sizes.get(name, found.bytes)
        return ServedName(name=name, bytes=size, created=found.created, facts=found.facts)

    def load(self, name: str) -> FaultyModel:
        """See `ModelHost`."""
        self.loading.pass_through()
        if self.load_failures:
            raise self.load_failures.pop(0)
        self.loads.append(name)
        return FaultyModel(name, self)

    def open_all(self) -> None:
        """Hold nothing any more."""
        self.steps.open()
        self.loading.open()


class FaultyModel(DemoModel):
    """The built-in model; see `FaultyHost`."""

    host: FaultyHost

    def engine(self, *, rows: int, cache_bytes: int | None) -> Any:
        """See `ServedModel`."""
        engine = Engine(
            self.model,
            self.tokenizer,
            rows=rows,
            cache_bytes=cache_bytes,
            prefill_chunk=self.host.chunk,
        )
        return WatchedEngine(engine, self)


class WatchedEngine:
    """An engine that tells what it does; see `lolama_core.protocols.serving.RequestEngine`."""

    def __init__(self, engine: Engine[str], model: FaultyModel) -> None:
        self._engine, self._host, self._model = engine, model.host, model
        self._steps = False

    @property
    def busy(self) -> bool:
        """See `RequestEngine`."""
        return self._steps or self._engine.busy

    @property
    def used_cache_bytes(self) -> int:
        """See `RequestEngine`."""
        return self._engine.used_cache_bytes

    @property
    def kept_cache_bytes(self) -> int:
        """See `RequestEngine`."""
        return self._engine.kept_cache_bytes

    @property
    def prepare(self) -> Callable[..., list[Any]]:
        """See `RequestEngine`."""

        def prepare(
            prompts: Sequence[Sequence[int]],
            configs: Any,
            processors: Any,
            keywords: Any,
            **more: Any,
        ) -> list[Any]:
            [prompt] = prompts
            text = self._model.tokenizer.decode([*prompt])
            if BROKEN in text:
                processors = (*processors, _broken)
            for word, ids in self._host.forced.items():
                if word in text:
                    processors = (*processors, _forced(len(prompt), ids))
            return self._engine.prepare(prompts, configs, processors, keywords, **more)

        return prepare

    def add(self, prepared: Any) -> int:
        """See `RequestEngine`."""
        return self._engine.add(prepared)

    def cancel(self, ticket: int) -> None:
        """See `RequestEngine`."""
        self._host.canceled.append(ticket)
        self._engine.cancel(ticket)

    def step(self) -> list[tuple[int, Emission]]:
        """See `RequestEngine`."""
        self._host.steps.pass_through()
        if self._host.failures:
            raise self._host.failures.pop(0)
        self._steps = True  # until the step is told, or a test would count too few
        try:
            emitted = self._engine.step()
            known = range(1, 1 + self._engine._tickets)
            progress = {
                t: p[1] for t in known if (p := self._engine.prompt_progress(t)) is not None
            }
            self._host.taken.append(Step(tuple(ticket for ticket, _ in emitted), progress))
        finally:
            self._steps = False
        return emitted

    def collect(self) -> dict[int, Generation[str] | LolamaError]:
        """See `RequestEngine`."""
        return self._engine.collect()

    def prompt_progress(self, ticket: int) -> tuple[int, int, int] | None:
        """See `RequestEngine`."""
        return self._engine.prompt_progress(ticket)


def _broken(history: Tensor, scores: Tensor) -> Tensor:
    """Scores that are no numbers."""
    return torch.full_like(scores, torch.nan)


def _forced(start: int, ids: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores that leave one choice at each place of an answer that begins at ``start``."""

    def force(history: Tensor, scores: Tensor) -> Tensor:
        place = history.shape[1] - start
        if place >= len(ids):
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, ids[place]] = 0
        return only

    return force
