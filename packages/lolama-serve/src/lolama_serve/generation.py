"""A request of any API on its way: admitted, prepared, run, and told piece by piece."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from lolama_core.protocols import Constraint
from lolama_core.protocols.generation import Generation, TokenLogprobs
from lolama_core.protocols.serving import ReplyParser, ReplyPart, ServedPrompt
from lolama_core.protocols.types import JSON
from lolama_serve.engine_thread import (
    Ended,
    EngineThread,
    Event,
    Failed,
    Progress,
    Submission,
    Timings,
)
from lolama_serve.errors import APIError, ContextExceeded
from lolama_serve.metrics import Metrics
from lolama_serve.options import ServeOptions
from lolama_serve.pool import LoadedModel, ModelPool

MOST_CHOICES = 128
"""Answers that one request may ask for."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is generated for one request.

    Attributes:
        prompts: What is continued, each as often as ``n`` says.
        settings: Settings that the request gives, by lolama's names.
        n: Answers to each prompt. With a seed, the second has the next one, and so on.
        constraint: Makes what each answer is kept within; None for what its prompt has.
        reports_progress: Whether it wants to know how far its prompts are.
    """

    prompts: Sequence[ServedPrompt]
    settings: Mapping[str, JSON]
    n: int = 1
    constraint: Callable[[], Constraint] | None = None
    reports_progress: bool = False


@dataclass(frozen=True)
class Piece:
    """What a step added to an answer.

    Attributes:
        index: Which answer: that of the first prompt's first, and so on.
        parts: The pieces that are certain.
        ids: Token ids that are certain.
        logprobs: Log-probabilities of each of them, if they were asked for.
    """

    index: int
    parts: Sequence[ReplyPart]
    ids: Sequence[int]
    logprobs: Sequence[TokenLogprobs]


@dataclass(frozen=True)
class Answer:
    """An answer as a whole.

    Attributes:
        index: Which one.
        result: What came of it.
        parts: All pieces; neighbors of a kind are one.
        timings: What it took.
    """

    index: int
    result: Generation[str]
    parts: Sequence[ReplyPart]
    timings: Timings

    @property
    def finish_reason(self) -> str:
        """Why it ended, as OpenAI's API calls it."""
        if self.result.finish_reason == "length":
            return "length"
        return "tool_calls" if any(part.kind == "call" for part in self.parts) else "stop"

    def text(self, kind: str = "text") -> str:
        """All that is of one kind."""
        return "".join(part.text for part in self.parts if part.kind == kind)


@dataclass(frozen=True)
class PromptProgress:
    """How far the prompt of an answer is."""

    index: int
    done: int
    total: int
    timings: Timings


Step: TypeAlias = Piece | Answer | PromptProgress


@dataclass(eq=False)
class Running:
    """The answers to a job, as they come: iterate over it once.

    Attributes:
        loaded: The model.
        settings: All settings, by lolama's names.
        positions: Positions of each prompt.
    """

    loaded: LoadedModel
    settings: Mapping[str, JSON]
    positions: Sequence[int]
    submissions: Sequence[Submission]
    parsers: Sequence[ReplyParser | None]
    events: asyncio.Queue[tuple[int, Event]]
    answers: list[Answer] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[Step]:
        """Pieces as they come, and each answer once it has ended.

        Raises:
            Exception: what made a request fail; the others are broken off.
        """
        parts: list[list[ReplyPart]] = [[] for _ in self.submissions]
        left = len(self.submissions)
        while left:
            index, event = await self.events.get()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Progress):
                yield PromptProgress(index, *event, self.submissions[index].timings)
            elif isinstance(event, Ended):
                left -= 1
                parser = self.parsers[index]
                rest = [] if parser is None else parser.finish()
                parts[index] += rest
                if rest:
                    yield Piece(index, rest, (), ())
                answer = Answer(index, event.result, joined(parts[index]), event.timings)
                self.answers.append(answer)
                yield answer
            else:
                parser = self.parsers[index]
                if parser is not None:
                    new = parser.push(event.text)
                else:
                    new = [ReplyPart("text", event.text)] if event.text else []
                parts[index] += new
                if new or event.ids:
                    yield Piece(index, new, [*map(int, event.ids)], event.logprobs)

    @property
    def in_order(self) -> list[Answer]:
        """The answers that have ended, in order."""
        return sorted(self.answers, key=lambda answer: answer.index)

    async def all(self) -> list[Answer]:
        """All answers, in order, once each has ended."""
        async for _ in self:
            pass
        return self.in_order


def joined(parts: Sequence[ReplyPart]) -> list[ReplyPart]:
    """The same, with neighbors of one kind as one; calls stay apart."""
    whole: list[ReplyPart] = []
    for part in parts:
        if whole and whole[-1].kind == part.kind != "call":
            whole[-1] = part._replace(text=whole[-1].text + part.text)
        else:
            whole.append(part)
    return whole


class Generator:
    """Runs jobs, a limited number at a time.

    Args:
        pool: The models.
        thread: Runs their engines.
        options: The limits.
        metrics: Counts what was done.
    """

    def __init__(
        self, pool: ModelPool, thread: EngineThread, options: ServeOptions, metrics: Metrics
    ) -> None:
        self.pool, self._thread, self._options, self._metrics = pool, thread, options, metrics
        self._running: set[Running] = set()

    @asynccontextmanager
    async def model(self, name: str | None) -> AsyncIterator[LoadedModel]:
        """A model for one request, which waits for its turn until the block ends.

        Raises:
            APIError: if too many wait already; see `ModelPool.use`.
        """
        most = self._options.parallel + self._options.max_queue
        if self.pool.waiting >= most:
            self._metrics.refuse()
            raise APIError(
                429,
                f"{self.pool.waiting} requests are here already, which is all that may be; "
                "try again later, or start the server with a larger --max-queue",
                code="queue_full",
                retry_after=self._metrics.seconds_until_room(),
            )
        self.pool.waiting += 1
        try:
            async with self.pool.use(name) as loaded:
                yield loaded
        finally:
            self.pool.waiting -= 1

    @asynccontextmanager
    async def run(self, loaded: LoadedModel, job: Job) -> AsyncIterator[Running]:
        """Run a job. Whatever of it has not ended when the block does is broken off.

        Raises:
            UsageError: for settings or inputs that make no sense, before anything has run.
            ContextExceeded: for a prompt that is too long.
        """
        if len(job.prompts) * job.n > MOST_CHOICES:
            raise APIError(
                400,
                f"asks for {len(job.prompts) * job.n} answers; ask for {MOST_CHOICES} at most",
                param="n",
            )
        prepared: list[Any] = []
        settings: Mapping[str, JSON] = {}
        for prompt in job.prompts:
            settings = self._settings(loaded, job, prompt)
            prepare = partial(_prepare, loaded, prompt, settings, job)
            prepared += await asyncio.to_thread(prepare)
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def deliver(index: int, event: Event) -> None:
            events.put_nowait((index, event))

        prompts = [prompt for prompt in job.prompts for _ in range(job.n)]
        submissions = []
        for index, (one, prompt) in enumerate(zip(prepared, prompts, strict=True)):
            made = Submission(loaded.engine, one, partial(deliver, index), job.reports_progress)
            made.timings.prompt = prompt.positions
            submissions.append(made)
        parsers = [None if each.parser is None else each.parser() for each in prompts]
        positions = [prompt.positions for prompt in prompts]
        running = Running(loaded, settings, positions, submissions, parsers, events)
        loaded.running += submissions
        self._running.add(running)
        try:
            for submission in submissions:
                self._thread.submit(submission)
            yield running
        finally:
            self._running.discard(running)
            ended = {answer.index for answer in running.answers}
            for index, submission in enumerate(submissions):
                loaded.running.remove(submission)
                if index not in ended:
                    self._thread.cancel(submission)
            self._metrics.count(running)

    def break_off(self) -> None:
        """End every request that runs with an error: the server stops."""
        for running in self._running:
            error = APIError(503, "the server is being stopped; try again later")
            running.events.put_nowait((0, Failed(error)))

    def _settings(self, loaded: LoadedModel, job: Job, prompt: ServedPrompt) -> Mapping[str, JSON]:
        room = loaded.context - prompt.positions
        if room < 1:
            raise ContextExceeded(prompt.positions, loaded.context)
        given = {**self._options.settings, **job.settings}
        wanted = given.get("max_new_tokens")
        limits = [room, self._options.max_tokens, wanted if isinstance(wanted, int) else None]
        if given.get("seed") is None:  # drawn here, so that the answer can tell which
            given["seed"] = secrets.randbits(32)
        given["max_new_tokens"] = min(limit for limit in limits if limit is not None)
        return loaded.model.settings(given)


def _prepare(
    loaded: LoadedModel, prompt: ServedPrompt, settings: Mapping[str, JSON], job: Job
) -> list[Any]:
    """Every request for one prompt, as the engine takes it."""
    make = job.constraint or prompt.constraint
    prepare = partial(loaded.engine.prepare, [list(prompt.ids)], [None], ())
    if make is None:
        return prepare({**settings, **prompt.inputs}, n=job.n)
    seed, made = settings.get("seed"), []
    for index in range(job.n):  # each text has a constraint of its own
        own = {"seed": (seed + index) % (1 << 63)} if isinstance(seed, int) else {}
        made += prepare({**settings, **own, **prompt.inputs}, constraint=make())
    return made
