"""What is generated for one request, and what comes of it, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lolama_core.protocols import Constraint
from lolama_core.protocols.generation import Generation, TokenLogprobs
from lolama_core.protocols.serving import ReplyParser, ReplyPart, ServedPrompt
from lolama_core.protocols.types import JSON
from lolama_serve.engine_thread import Ended, Event, Failed, Progress, Submission
from lolama_serve.errors import APIError
from lolama_serve.pool import LoadedModel
from lolama_serve.request_timings import Timings

MOST_CHOICES = 128
"""Answers that one request may ask for."""


def check_choices(count: int) -> None:
    """Check how many answers a request asks for, before anything of it takes time.

    Raises:
        APIError: if they are too many.
    """
    if count > MOST_CHOICES:
        raise APIError(400, f"asks for {count} answers; ask for {MOST_CHOICES} at most", param="n")


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
    """How far the prompt of an answer is; see `lolama_serve.engine_thread.Progress`."""

    index: int
    found: int
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
        submissions: The requests, one for each answer.
        parsers: What tells the parts of each answer apart; None for an answer that is text alone.
        events: Where the engine's thread puts (index of the answer, event).
        answers: Those that have ended, in the order in which they did.
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
