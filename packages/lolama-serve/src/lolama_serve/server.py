"""The parts of a server, which its routes use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from lolama_core.protocols.serving import ModelHost
from lolama_serve.engine_thread import EngineThread
from lolama_serve.generation import Generator
from lolama_serve.metrics import Metrics
from lolama_serve.options import ServeOptions
from lolama_serve.pool import ModelPool

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_CHECK = 0.5
"""Seconds between two checks of how long the models have been idle."""


class Server:
    """The parts of a server; they exist while its event loop runs.

    Args:
        host: Where its models come from.
        options: What it was started with.

    Attributes:
        pool: The loaded models.
        generator: Runs requests.
        metrics: Counts them.
        failure: Why it stops by itself.
        stop: Called to stop it; whoever runs it sets it.
    """

    pool: ModelPool
    generator: Generator

    def __init__(self, host: ModelHost, options: ServeOptions) -> None:
        self.host, self.options, self.metrics = host, options, Metrics()
        self.failure: Exception | None = None
        self.stop: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start its thread, and load the models that were named; stop both at the end."""
        thread = EngineThread(asyncio.get_running_loop(), self.metrics.stepped)
        self.pool = ModelPool(self.host, self.options, thread)
        self.generator = Generator(self.pool, thread, self.options, self.metrics)
        loading = asyncio.create_task(self._preload())
        idle = asyncio.create_task(self._watch_idle())
        try:
            yield
        finally:
            for task in (loading, idle):
                task.cancel()
            await asyncio.to_thread(thread.stop)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Call what takes a while beside the event loop."""
        return await asyncio.to_thread(function, *args, **named)

    async def _preload(self) -> None:
        """Load the models that the server was started with; without one of them it stops."""
        try:
            await self.pool.preload()
        except Exception as error:
            self.failure = error
            self.stop()

    async def _watch_idle(self) -> None:
        while self.options.sleep_idle is not None:
            await asyncio.sleep(_IDLE_CHECK)
            await self.pool.unload_idle()
