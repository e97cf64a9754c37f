"""How a request of any API is admitted, prepared and run."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from lolama_core.protocols.serving import ServedPrompt
from lolama_core.protocols.types import JSON
from lolama_serve.engine_thread import (
    EngineThread,
    Event,
    Failed,
    Submission,
)
from lolama_serve.errors import APIError, ContextExceeded, being_stopped
from lolama_serve.job import Job, Running, check_choices
from lolama_serve.logs import logger
from lolama_serve.metrics import Metrics
from lolama_serve.options import ServeOptions
from lolama_serve.pool import LoadedModel, ModelPool


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
                "try again later, or start the server with a longer queue",
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
        check_choices(len(job.prompts) * job.n)
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
            logger.info(self._log_facts(running, job))

    def _log_facts(self, running: Running, job: Job) -> dict[str, Any]:
        """What the log says of a job; its texts only with the option ``log_texts``."""
        facts: dict[str, Any] = {
            "event": "answers",
            "model": running.loaded.served.name,
            "prompt_tokens": [prompt.positions for prompt in job.prompts],
            "tokens": [one.timings.tokens for one in running.submissions],
            "ends": {one.index: one.finish_reason for one in running.in_order},
        }
        if self._options.log_texts:
            decode = running.loaded.model.tokenizer.decode
            prompts = [decode([*one.ids], skip_special_tokens=False) for one in job.prompts]
            facts["prompts"], facts["texts"] = prompts, [one.text() for one in running.in_order]
        return facts

    def break_off(self) -> None:
        """End every request that runs with an error: the server stops."""
        for running in self._running:
            running.events.put_nowait((0, Failed(being_stopped())))

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
    prepare = partial(
        loaded.engine.prepare, [list(prompt.ids)], [None], (), visible_ids=prompt.visible_ids
    )
    if make is None:
        return prepare({**settings, **prompt.inputs}, n=job.n)
    seed, made = settings.get("seed"), []
    for index in range(job.n):  # each text has a constraint of its own
        own = {"seed": (seed + index) % (1 << 63)} if isinstance(seed, int) else {}
        made += prepare({**settings, **own, **prompt.inputs}, constraint=make())
    return made
