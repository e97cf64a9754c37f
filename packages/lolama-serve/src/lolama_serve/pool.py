"""The models that are loaded: they come when they are asked for, and leave when their memory is needed."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar, cast

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.serving import ModelHost, RequestEngine, ServedModel, ServedName
from lolama_serve.engine_thread import EngineThread, Submission
from lolama_serve.errors import APIError, being_stopped
from lolama_serve.logs import logger
from lolama_serve.options import ServeOptions

T = TypeVar("T")
State: TypeAlias = Literal["loading", "ready", "sleeping"]


@dataclass(eq=False)
class LoadedModel:
    """A model in memory.

    Attributes:
        served: What it was found as.
        model: The model.
        engine: What runs it.
        context: Positions that a request may take.
        running: Requests of it that have not ended, in the order in which they came.
        users: How many requests hold it, those included that waited for it.
        used: When the last one let go of it, in seconds of `time.monotonic`.
    """

    served: ServedName
    model: ServedModel
    engine: RequestEngine
    context: int
    running: list[Submission] = field(default_factory=list)
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class ModelPool:
    """The models of a server.

    Args:
        host: Where they come from.
        options: How many may be here, and for how long.
        thread: Runs their engines.
    """

    def __init__(self, host: ModelHost, options: ServeOptions, thread: EngineThread) -> None:
        self.host, self._options, self._thread = host, options, thread
        self.loaded: dict[str, LoadedModel] = {}
        self._state: State = "ready"
        self._preloading = bool(options.models)
        self.waiting = 0
        """Requests that have come and have not ended, of all models."""
        # Requests of each model, those that wait for it included.
        self._holders: Counter[str] = Counter()
        self._load_tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        self._loading = asyncio.Lock()
        self._stopped = asyncio.Event()

    @property
    def state(self) -> State:
        """Whether requests can be answered at once."""
        return "loading" if self._preloading else self._state

    async def preload(self) -> None:
        """Load the models that the server was started with.

        Raises:
            LolamaError: if one cannot be loaded.
            APIError: if all together are larger than they may be.
        """
        self._preloading = True
        for name in self._options.models:
            async with self.use(name):
                pass
        self._preloading = False

    def name_of(self, asked: str | None) -> str:
        """The name of the model that a request means.

        Raises:
            APIError: if there is none.
        """
        models = self._options.models
        if not asked:
            if models:
                return models[0]
            raise APIError(
                400,
                "the request names no model, and the server was started without one; see "
                "GET /v1/models for those that are here",
                param="model",
            )
        if asked in self.loaded or asked in models:
            return asked
        try:
            return self.host.find(asked).name
        except UsageError:
            if self._options.any_model and models:
                return models[0]
            raise APIError(
                404,
                f"there is no model {asked!r:.200} here; see GET /v1/models for those that are",
                param="model",
                code="model_not_found",
            ) from None

    async def peek(self, asked: str | None) -> LoadedModel | None:
        """The model of that name if it is in memory. This does not count as a use of it.

        Raises:
            APIError: if it is not here.
        """
        return self.loaded.get(await asyncio.to_thread(self.name_of, asked))

    @asynccontextmanager
    async def use(self, asked: str | None) -> AsyncIterator[LoadedModel]:
        """The model of that name, which stays in memory until the block ends.

        Raises:
            APIError: if it is not here, or cannot be while others are in use.
            LolamaError: if it cannot be loaded.
        """
        if asked is None or asked in self.loaded:
            name = self.name_of(asked)
        else:
            name = await asyncio.to_thread(self.name_of, asked)
        self._hold(name, 1)
        try:
            while (loaded := self.loaded.get(name)) is None:
                # Others may wait for it, too: it is loaded to the end, whoever leaves meanwhile.
                load, stop = self._load_once(name), asyncio.create_task(self._stopped.wait())
                try:
                    await asyncio.wait([load, stop], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stop.cancel()
                if not load.done():
                    raise being_stopped()
                load.result()
            yield loaded
        finally:
            self._hold(name, -1)
            async with self._changed:
                self._changed.notify_all()

    def break_off(self) -> None:
        """End every request that waits for a model with an error: the server stops."""
        self._stopped.set()

    def _hold(self, name: str, change: int) -> None:
        self._holders[name] += change
        if (loaded := self.loaded.get(name)) is not None:
            loaded.users, loaded.used = self._holders[name], time.monotonic()

    def _load_once(self, name: str) -> asyncio.Task[None]:
        task = self._load_tasks.get(name)
        if task is None:
            task = self._load_tasks[name] = asyncio.create_task(self._load(name))

            def done(task: asyncio.Task[None]) -> None:
                del self._load_tasks[name]
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.warning({"event": "load", "model": name, "error": str(error)})

            task.add_done_callback(done)
        return task

    async def _load(self, name: str) -> None:
        async with self._loading:
            try:
                served = await asyncio.to_thread(self.host.find, name)
            except UsageError as error:
                raise APIError(404, str(error), param="model", code="model_not_found") from None
            await self._make_room(served)
            sleeping, self._state = self._state == "sleeping", "loading"
            options = self._options

            def load() -> LoadedModel:
                model = self.host.load(name)
                engine = model.engine(rows=options.parallel, cache_bytes=options.cache_bytes)
                context = min(options.context or model.context_length, model.context_length)
                return LoadedModel(served, model, engine, context)

            try:
                self.loaded[name] = await in_own_thread(load)
                self._hold(name, 0)
                self._state = "ready"
            except BaseException:
                self._state = "sleeping" if sleeping else "ready"
                raise

    async def _make_room(self, served: ServedName) -> None:
        """Let idle models leave until there is memory for another one; wait for busy ones."""
        most = self._options.model_bytes
        if most is None:
            return
        if served.bytes > most:
            raise APIError(
                503,
                f"{served.name} takes {served.bytes:,} bytes, and models may take {most:,} "
                "altogether; start the server with more memory for models",
            )
        async with self._changed:
            while sum(one.served.bytes for one in self.loaded.values()) + served.bytes > most:
                idle = [one for one in self.loaded.values() if not one.users]
                if idle:
                    await self._unload(min(idle, key=lambda one: one.used))
                else:
                    await self._changed.wait()

    async def _unload(self, one: LoadedModel) -> None:
        del self.loaded[one.served.name]

        def close() -> None:  # no engine may run beside it
            one.model.close()
            gc.collect()

        await self._thread.run(close)

    async def unload(self, name: str) -> None:
        """Let a model leave now, unless a request still holds it."""
        async with self._loading:
            one = self.loaded.get(name)
            if one is not None and not one.users:
                await self._unload(one)
                async with self._changed:
                    self._changed.notify_all()

    async def unload_idle(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """Let all models leave once none has been used for as long as the options say."""
        limit = self._options.sleep_idle
        loaded = [*self.loaded.values()]
        if limit is None or not loaded or self._state == "loading":
            return
        if all(not one.users and now() - one.used >= limit for one in loaded):
            async with self._loading:
                for one in loaded:
                    # While this waited, it may have left to make room, or have come to be used.
                    if self.loaded.get(one.served.name) is one and not one.users:
                        await self._unload(one)
            if not self.loaded:
                self._state = "sleeping"


async def in_own_thread(function: Callable[[], T]) -> T:
    """Call what may take minutes, in a thread that nobody waits for when the process ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def call() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=call, name="lolama-load", daemon=True).start()
    return await future
