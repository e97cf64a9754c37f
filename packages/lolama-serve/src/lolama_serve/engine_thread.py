"""The one thread that runs the engines: requests come in through a queue, and events go out."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from lolama_core.protocols.errors import LolamaError, ResourceError
from lolama_core.protocols.generation import Emission, Generation
from lolama_core.protocols.serving import RequestEngine
from lolama_serve.logs import logger
from lolama_serve.request_timings import Timings

_FAILED_STEPS = 3
"""Steps in a row that may fail for lack of memory before the request that came last has to go."""


class Progress(NamedTuple):
    """How far a prompt is.

    Attributes:
        found: Positions that were found, and need not run.
        done: Those, and the ones that have run.
        total: All of them.
    """

    found: int
    done: int
    total: int


class Ended(NamedTuple):
    """A request has ended.

    Attributes:
        result: What came of it.
        timings: What it took.
    """

    result: Generation[str]
    timings: Timings


class Failed(NamedTuple):
    """A request has failed.

    Attributes:
        error: What made it fail.
    """

    error: Exception


Event: TypeAlias = Progress | Emission | Ended | Failed


@dataclass(eq=False)
class Submission:
    """One request on its way through the engine's thread.

    Attributes:
        engine: What runs it.
        prepared: What the engine's ``prepare`` made of it.
        deliver: Receives its events, in the thread of the event loop.
        reports_progress: Whether it wants to know how far its prompt is.
        timings: When it reached each stage.
        told: How many positions of its prompt were reported as done.
        ticket: What the engine knows it by.
        gone: Whether nobody waits for it any more.
    """

    engine: RequestEngine
    prepared: Any
    deliver: Callable[[Event], None]
    reports_progress: bool = False
    timings: Timings = field(default_factory=lambda: Timings(time.monotonic()))
    told: int | None = None
    ticket: int | None = None
    gone: bool = False

    def not_begun(self) -> Timings:
        """Its timings before anything of it has run."""
        return Timings(self.timings.submitted, prompt=self.timings.prompt)


class EngineThread:
    """Owns every engine of the server, and steps those that have something to do, one after another.

    Args:
        loop: Where events are delivered.
        stepped: Called after each step with the number of rows that it ran; for metrics.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stepped: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._loop, self._stepped = loop, stepped
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._submissions: dict[RequestEngine, dict[int, Submission]] = {}
        self._failures: dict[RequestEngine, int] = {}
        self._events: list[tuple[Submission, Event]] = []
        self._thread = threading.Thread(target=self._run, name="lolama-engine", daemon=True)
        self._thread.start()

    def submit(self, submission: Submission) -> None:
        """Let a request join its engine at the next step."""
        self._commands.put(lambda: self._add(submission))

    def cancel(self, submission: Submission) -> None:
        """Take a request out, wherever it stands, before the next step. Nothing more is delivered."""
        submission.gone = True
        self._commands.put(lambda: self._leave(submission))

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call a function between two steps; for what must not run beside an engine.

        Returns:
            A future with its result, or with the exception that it raised.
        """
        future: asyncio.Future[Any] = self._loop.create_future()

        def call() -> None:
            try:
                result, error = function(), None
            except Exception as failure:
                result, error = None, failure
            self._call_in_loop(lambda: _settle(future, result, error))

        self._commands.put(call)
        return future

    def stop(self) -> None:
        """End the thread after its current step."""
        self._commands.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            busy = [engine for engine, submissions in self._submissions.items() if submissions]
            try:
                while True:
                    command = self._commands.get(block=not busy and not self._events)
                    if command is None:
                        return
                    try:
                        command()
                    except Exception:
                        logger.exception("a request could not join or leave its engine")
                    del command  # which holds a request
                    busy = [
                        engine for engine, submissions in self._submissions.items() if submissions
                    ]
            except queue.Empty:
                pass
            for engine in busy:
                try:
                    self._step(engine)
                except Exception as error:
                    # The engine cannot be trusted any more with what it has: all of it ends, and says so.
                    logger.exception("a step of the engine failed")
                    self._fail_all(engine, error)
            self._deliver()

    def _fail_all(self, engine: RequestEngine, error: Exception) -> None:
        for submission in [*self._submissions.pop(engine, {}).values()]:
            self._events.append((submission, Failed(error)))
            assert submission.ticket is not None
            try:
                engine.cancel(submission.ticket)
            except Exception:
                logger.exception("the engine does not let go of a request")

    def _add(self, submission: Submission) -> None:
        if submission.gone:
            return
        timings = submission.timings
        timings.begun = time.monotonic()
        try:
            submission.ticket = submission.engine.add(submission.prepared)
        except Exception as error:
            self._events.append((submission, Failed(error)))
            return
        submissions = self._submissions.setdefault(submission.engine, {})
        submissions[submission.ticket] = submission
        self._report_progress(submission)
        self._collect(submission.engine)  # one that wants no token has ended

    def _leave(self, submission: Submission) -> None:
        submissions = self._submissions.get(submission.engine, {})
        if submission.ticket is not None and submissions.pop(submission.ticket, None) is not None:
            submission.engine.cancel(submission.ticket)
        if not submissions:
            self._submissions.pop(submission.engine, None)

    def _step(self, engine: RequestEngine) -> None:
        submissions = self._submissions.get(engine, {})
        try:
            emitted = engine.step()
            self._failures.pop(engine, None)
        except ResourceError as error:
            self._memory_is_short(engine, error)
            return
        for submission in submissions.values():
            if submission.reports_progress and not submission.timings.first:
                self._report_progress(submission)  # ahead of the first token
        now, rows = time.monotonic(), set()
        for ticket, emission in emitted:
            one = submissions.get(ticket)
            if one is None:
                continue
            rows.add(ticket)
            timings = one.timings
            timings.first = timings.first or now
            timings.last = now
            timings.tokens += 1
            self._events.append((one, emission))
        self._collect(engine)
        self._stepped(len(rows))

    def _memory_is_short(self, engine: RequestEngine, error: ResourceError) -> None:
        """Try again; the request that came last has to go if that does not help."""
        self._failures[engine] = self._failures.get(engine, 0) + 1
        if self._failures[engine] < _FAILED_STEPS:
            time.sleep(0.05)
            return
        self._failures[engine] = 0
        submissions = self._submissions[engine]
        submission = submissions[max(submissions)]
        self._events.append((submission, Failed(error)))
        self._leave(submission)

    def _collect(self, engine: RequestEngine) -> None:
        submissions = self._submissions.get(engine, {})
        for ticket, result in engine.collect().items():
            submission = submissions.pop(ticket, None)
            if submission is None:
                continue
            if isinstance(result, LolamaError):
                self._events.append((submission, Failed(result)))
            else:
                self._events.append((submission, Ended(result, submission.timings)))
        if not submissions:
            self._submissions.pop(engine, None)

    def _report_progress(self, submission: Submission) -> None:
        assert submission.ticket is not None
        if not submission.reports_progress:
            return
        facts = submission.engine.prompt_progress(submission.ticket)
        if facts is None:
            return
        progress = Progress(*facts)
        if submission.told is None:
            submission.told = progress.found
            begun = progress._replace(done=progress.found)
            self._events.append((submission, begun))
        if progress.done > submission.told:
            submission.told = progress.done
            self._events.append((submission, progress))

    def _deliver(self) -> None:
        if not self._events:
            return
        events, self._events = self._events, []

        def hand_over() -> None:
            for submission, event in events:
                if not submission.gone:
                    submission.deliver(event)

        self._call_in_loop(hand_over)

    def _call_in_loop(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop has ended, and nobody waits any more
            logger.debug("the event loop has ended before the engine")


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
