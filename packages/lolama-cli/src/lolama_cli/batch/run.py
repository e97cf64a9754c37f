"""Running a batch: prompts join the model's running batch as others leave it, and are answered in order."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from lolama_cli.batch.answers import Answers
from lolama_cli.batch.prompts import BatchPrompt, BatchSettings, Line, line_id, parse
from lolama_cli.command_words import in_options
from lolama_cli.console import note
from lolama_cli.draft import tried_ahead
from lolama_cli.generation import with_seed
from lolama_cli.schemas import BATCH
from lolama_core.protocols.errors import LolamaError

if TYPE_CHECKING:
    from lolama import GenerationConfig

# Prompts are read ahead of the first that has no answer yet, for this many times the rows: that answer may
# be a long one, and the others should not wait for it.
_WINDOW = 16


class Answering(Protocol):
    """What answers prompts, several at a time.

    Attributes:
        rows: How many at the same time.
    """

    rows: int

    def submit(self, prompt: BatchPrompt, config: GenerationConfig) -> int:
        """Take a prompt on; its ticket.

        Raises:
            LolamaError: if it makes no sense.
        """
        ...

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def step(self) -> None:
        """Go on a little.

        Raises:
            LolamaError: if nothing can be answered any more.
        """
        ...

    def collect(self) -> Mapping[int, Mapping[str, object] | LolamaError]:
        """Ticket → answer, as `answer_facts` tells it, of each that ended since the last call."""
        ...


@dataclass
class _PendingPrompt:
    """A prompt whose answer is not written yet; ``answer`` once there is one."""

    line: Line
    answer: Mapping[str, object] | LolamaError | None = None


@dataclass
class Tally:
    """What became of the prompts."""

    answers: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    failed: int = 0
    first_failure: tuple[int, str, int] | None = None  # line, message, exit code

    def add(self, answer: dict[str, Any]) -> None:
        """Count one, of this run or of an earlier one."""
        self.answers += 1
        error = answer.get("error")
        if error is None:
            self.tokens += len(answer["ids"])
            # An earlier version did not tell.
            self.drafted += answer.get("drafted_tokens", 0)
            self.accepted += answer.get("accepted_tokens", 0)
            return
        self.failed += 1
        if self.first_failure is None:
            self.first_failure = (answer["line"], error["message"], error["exit_code"])


@dataclass(frozen=True)
class Batch:
    """Everything that answers have in common.

    Attributes:
        answering: What answers.
        common: What holds for every line.
    """

    answering: Answering
    common: BatchSettings

    def run(self, lines: Iterator[Line], answers: Answers, tally: Tally) -> None:
        """Answer every line.

        Args:
            lines: Those without an answer.
            answers: Where the answers go.
            tally: Counts them.

        Raises:
            ResourceError: if memory or disk do not suffice. What was written stays.
            LolamaError: if nothing is answered any more.
        """
        batch, rows = self.answering, self.answering.rows
        waiting: deque[_PendingPrompt] = deque()
        running: dict[int, _PendingPrompt] = {}
        more = True
        with _progress(tally, answers) as show:
            while True:
                while more and len(running) < 2 * rows and len(waiting) < _WINDOW * rows:
                    line = next(lines, None)
                    more = line is not None
                    if line is not None:
                        waiting.append(self._submit(line, running))
                for ticket, result in batch.collect().items():
                    running.pop(ticket).answer = result
                while waiting and waiting[0].answer is not None:
                    answer = _facts(waiting.popleft())
                    answers.write(BATCH.line(answer))
                    tally.add(answer)
                    show()
                if batch.busy:
                    batch.step()
                elif not more and not waiting:
                    return

    def _submit(self, line: Line, running: dict[int, _PendingPrompt]) -> _PendingPrompt:
        """Submit a line; one that makes no sense has its answer at once."""
        pending = _PendingPrompt(line)
        try:
            prompt = parse(line, self.common)
            running[self.answering.submit(prompt, with_seed(prompt.config))] = pending
        except LolamaError as error:
            pending.answer = error
        return pending


def _facts(pending: _PendingPrompt) -> dict[str, Any]:
    facts = {"line": pending.line.number, **line_id(pending.line), "key": pending.line.key}
    result = pending.answer
    if isinstance(result, LolamaError):
        # A line's keys are called as in Python.
        reported = type(result)(result.subject, result.reason, in_options(result.remedy))
        return {**facts, "error": {"message": str(reported), "exit_code": result.exit_code}}
    assert result is not None
    return {**facts, **result}


@contextmanager
def _progress(tally: Tally, answers: Answers) -> Iterator[Any]:
    """A function that shows how far it is, on a terminal where the answers do not; else it does nothing."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or answers.on_terminal:
        yield lambda: None
        return
    drawn = 0.0

    def show() -> None:
        nonlocal drawn
        if time.monotonic() - drawn > 0.1:
            drawn = time.monotonic()
            stream.write(f"\r{tally.answers:,} answers")
            stream.flush()

    try:
        yield show
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


def answer_all(
    batch: Batch, lines: Iterator[Line], answers: Answers, tally: Tally, *, verbose: bool
) -> None:
    """`Batch.run` for the lines that are left, and how it went on standard error."""
    before, started = replace(tally), time.perf_counter()
    batch.run(lines, answers, tally)
    if verbose:
        seconds = max(time.perf_counter() - started, 1e-9)
        made, tokens = tally.answers - before.answers, tally.tokens - before.tokens
        ahead = tried_ahead(tally.drafted - before.drafted, tally.accepted - before.accepted)
        note(
            f"{made:,} answers of {tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s; "
            f"{ahead}"
        )
