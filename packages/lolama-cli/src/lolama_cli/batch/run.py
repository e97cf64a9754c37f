"""Running a batch: prompts join the model's running batch as others leave it, and are answered in order."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from lolama.thinking import thought_format
from lolama_cli.batch.answers import Answers
from lolama_cli.batch.prompts import BatchPrompt, BatchSettings, Line, line_id, parse
from lolama_cli.command_words import in_options
from lolama_cli.console import note
from lolama_cli.draft import tried_ahead
from lolama_cli.generation import answer_facts, with_seed
from lolama_cli.schemas import BATCH
from lolama_core.protocols.errors import LolamaError

if TYPE_CHECKING:
    from lolama import BatchGenerator, Drafting, Generation, GenerationConfig
    from lolama.answers import Constraints
    from lolama.thinking import ThoughtFormat
    from lolama_cli.pictures import PreparedImages
    from lolama_core.protocols import CausalLM, Tokenizer

# Prompts are read ahead of the first that has no answer yet, for this many times the rows: that answer may
# be a long one, and the others should not wait for it.
_WINDOW = 16


@dataclass
class _PendingPrompt:
    """A prompt whose answer is not written yet; ``answer`` once there is one."""

    line: Line
    prompt_length: int = 0
    config: GenerationConfig | None = None
    thoughts: ThoughtFormat | None = None
    answer: Generation | LolamaError | None = None


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
        model, tokenizer: What answers.
        encode: A prompt → its ids, checked, and its pictures; None for a text model.
        common: What holds for every line.
        rows: Prompts that run at the same time.
        cache_bytes: Bytes that their keys and values may take; None for the default of `BatchGenerator`.
        draft: What tries tokens ahead.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.
    """

    model: CausalLM
    tokenizer: Tokenizer
    encode: Callable[[BatchPrompt], tuple[Sequence[int], PreparedImages | None]]
    common: BatchSettings
    rows: int
    cache_bytes: int | None
    draft: Drafting
    cache_dtype: Literal["int8"] | None

    @cached_property
    def constraints(self) -> Constraints:
        """Makes those of lines that say what their answers may be."""
        from lolama.answers import Constraints

        return Constraints(self.model, self.tokenizer)

    def run(self, lines: Iterator[Line], answers: Answers, tally: Tally) -> None:
        """Answer every line.

        Args:
            lines: Those without an answer.
            answers: Where the answers go.
            tally: Counts them.

        Raises:
            ResourceError: if memory or disk do not suffice. What was written stays.
        """
        from lolama import BatchGenerator

        batch = BatchGenerator(
            self.model,
            self.tokenizer,
            rows=self.rows,
            cache_bytes=self.cache_bytes,
            cache_dtype=self.cache_dtype,
            draft=self.draft,
        )
        waiting: deque[_PendingPrompt] = deque()
        running: dict[int, _PendingPrompt] = {}
        more = True
        with _progress(tally, answers) as show:
            while True:
                while more and len(running) < 2 * self.rows and len(waiting) < _WINDOW * self.rows:
                    line = next(lines, None)
                    more = line is not None
                    if line is not None:
                        waiting.append(self._submit(line, batch, running))
                for ticket, result in batch.collect().items():
                    running.pop(ticket).answer = result
                while waiting and waiting[0].answer is not None:
                    answer = self._facts(waiting.popleft())
                    answers.write(BATCH.line(answer))
                    tally.add(answer)
                    show()
                if batch.busy:
                    batch.step()
                elif not more and not waiting:
                    return

    def _submit(
        self, line: Line, batch: BatchGenerator, running: dict[int, _PendingPrompt]
    ) -> _PendingPrompt:
        """Submit a line; one that makes no sense has its answer at once."""
        pending = _PendingPrompt(line)
        try:
            prompt = parse(line, self.common)
            ids, images = self.encode(prompt)
            pending.prompt_length = len(ids) if images is None else images.count_positions(ids)
            if not self.common.raw:
                pending.thoughts = thought_format(self.tokenizer, ids)
            pending.config = with_seed(prompt.config)
            inputs = {} if images is None else images.model_inputs
            constraint = None
            if prompt.grammar is not None:
                constraint = self.constraints.make(prompt.grammar, pending.thoughts)
            ticket = batch.submit(ids, pending.config, constraint=constraint, **inputs)
            running[ticket] = pending
        except LolamaError as error:
            pending.answer = error
        return pending

    def _facts(self, pending: _PendingPrompt) -> dict[str, Any]:
        facts = {"line": pending.line.number, **line_id(pending.line), "key": pending.line.key}
        result = pending.answer
        if isinstance(result, LolamaError):
            # A line's keys are called as in Python.
            reported = type(result)(result.subject, result.reason, in_options(result.remedy))
            return {**facts, "error": {"message": str(reported), "exit_code": result.exit_code}}
        assert result is not None and pending.config is not None
        if pending.thoughts is not None:
            result = pending.thoughts.apart(result)
        return facts | answer_facts(result, pending.prompt_length, pending.config, self.tokenizer)


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
