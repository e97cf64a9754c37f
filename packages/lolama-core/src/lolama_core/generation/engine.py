"""The loop that runs a model for all requests at once; they join and leave while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import sleep
from typing import Any, ClassVar, Generic, TypeAlias, Unpack, overload

from torch import Tensor

from lolama_core.generation.engine_options import EngineOptions, check_options
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import Keywords
from lolama_core.generation.passes import counted, passes, run_pass
from lolama_core.generation.request import Request
from lolama_core.generation.request_factory import RequestFactory, TextOrIds
from lolama_core.generation.schedule import Schedule, TooLittleMemory
from lolama_core.generation.scheduled import Scheduled
from lolama_core.generation.speculation import Drafting, Speculation, speculation_of
from lolama_core.model.device import memory_errors
from lolama_core.protocols import CausalLM, Constraint, LogitsProcessor, Tokenizer
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.generation import Emission, Generation, Text
from lolama_core.protocols.inference import run_inference
from lolama_core.protocols.locks import while_locked
from lolama_core.protocols.types import Prompt
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import forget, runner_of
from lolama_core.runtime.turns import Turns

Prepared: TypeAlias = tuple[Request, Prompt]
"""A checked request, and its prompt as the model reads it."""


class Engine(Generic[Text]):
    """Generates for many prompts at once. `TextGenerator`, batches, scores and chats stand on it.

    Each text gets the tokens that it would get alone, in float32, and with int8 weights where native kernels
    run them. In sixteen bits rows beside each other may be rounded differently, so what is chosen may differ.

    A step decodes one token for every running row, and beside them runs a chunk of the prompts that wait, so
    that a long prompt never stalls the rest.

    Keys and values take memory as a text grows, whatever its settings allow. When ``cache_bytes`` are used,
    the request that came last is put back. It waits, and later goes on from where it was. What several texts
    begin with is run once. It is kept as long as no request needs the memory.

    An engine belongs to one thread. `prepare` and `cancel` may be called from others.

    Args:
        model: The model.
        tokenizer: Needed for texts, as prompts, as stop texts and in results.
        rows: Requests that run at the same time; others wait their turn.
        prefill_chunk: Positions of prompts that a step runs at most, or a span of a `Prompt`; None for 512,
            but beside rows that decode for as many as cost no more than their step, and 8 at least.
        cache_bytes: What keys and values may take, in bytes; None for four fifths of the memory that is free
            when the first request runs.
        cache_dtype: "int8" keeps keys and values in half the bytes, at some loss; None in the model's dtype.
        memory_of: A runner → where its rows are, if others share it. What is said above counts nothing then.
        draft: What guesses tokens that rows try ahead of their turn, which changes no text; see `Drafting`.

    Attributes:
        memory: Where its rows are, once one has run.
        costs: What its passes cost.
        speculation: What its rows try ahead.
        prepare: Makes requests to `add`, see `RequestFactory.requests`. What takes long, such as encoding
            pictures, is done there, and not within a step.

    Raises:
        UsageError: if a number is below 1, or for a ``cache_dtype`` that the model cannot have.

    Example:
        >>> engine = Engine(model, tokenizer)
        >>> engine.submit("Once upon a time", max_new_tokens=20)
        >>> while engine.busy:
        ...     for ticket, emission in engine.step():
        ...         print(emission.text, end="")
        >>> results = engine.collect()
    """

    default_chunk: ClassVar[int | None] = None

    @overload
    def __init__(self: Engine[None], model: CausalLM, **options: Unpack[EngineOptions]) -> None: ...
    @overload
    def __init__(
        self: Engine[str], model: CausalLM, tokenizer: Tokenizer, **options: Unpack[EngineOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: Engine[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        **options: Unpack[EngineOptions],
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        rows: int = 16,
        prefill_chunk: int | None = None,
        cache_bytes: int | None = None,
        cache_dtype: CacheDtype | None = None,
        memory_of: Callable[[CausalLM], RowMemory] | None = None,
        draft: Drafting | Speculation = "auto",
    ) -> None:
        check_options(model, rows, prefill_chunk, cache_bytes, cache_dtype)
        self.speculation, cache_bytes = speculation_of(draft, model, cache_bytes, cache_dtype)
        self.costs = self.speculation.costs
        self._model, self._chunk = model, prefill_chunk or self.default_chunk
        self.prepare = RequestFactory(model, tokenizer).requests
        own = partial(RowMemory, rows=rows, max_bytes=cache_bytes, cache_dtype=cache_dtype)
        self._memory_of = memory_of or own
        self.memory: RowMemory | None = None
        self._runner: CausalLM | None = None
        self._schedule = Schedule(rows)
        self._emitted: list[tuple[int, Emission]] = []
        self._results: dict[int, Generation[Any] | LolamaError] = {}
        self._tickets = 0
        self._stepping = threading.Lock()
        self._looks_for_memory = Turns()  # a step that chooses it, or whoever cancels
        self._broken = False  # whether an error or Ctrl-C has broken off a step

    @property
    def busy(self) -> bool:
        """Whether a step would do anything, such as hand over a token that Ctrl-C kept the last one from."""
        return bool(self._schedule.requests or self._emitted)

    @property
    def used_cache_bytes(self) -> int:
        """Bytes that keys and values of all requests take now, without those that are merely kept."""
        return 0 if self.memory is None else self.memory.used_bytes

    @property
    def kept_cache_bytes(self) -> int:
        """Bytes kept of requests that have ended, for prompts that begin alike. Others may take them."""
        return 0 if self.memory is None else self.memory.idle_bytes

    def prompt_progress(self, ticket: int) -> tuple[int, int, int] | None:
        """Positions of a request's prompt that were found, that were found or have run, and all of them.

        None while the request waits, and once it is not here any more.
        """
        one = self._schedule.requests.get(ticket)
        if one is None or not one.begun:
            return None
        count = one.prompt.lengths[0]
        return one.request.cached_tokens, count - min(one.to_run, count), count

    def submit(
        self,
        input_ids: TextOrIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        constraint: Constraint | None = None,
        **settings: Unpack[Keywords],
    ) -> int:
        """Add a prompt; arguments as for `TextGenerator.generate_stream`. It joins at the next step.

        Returns:
            A ticket, by which `step` and `collect` name it.

        Raises:
            UsageError: for settings, ids or inputs that make no sense.
        """
        [prepared] = self.prepare(
            [input_ids], [config], logits_processors, settings, constraint=constraint
        )
        return self.add(prepared)

    def add(self, prepared: Prepared) -> int:
        """Add a request that was prepared; see `submit`.

        Raises:
            UsageError: if it was added before.
        """
        self._tickets += 1
        request, prompt = prepared
        if request.limit or request.prompt_reader is not None:
            self._schedule.add(Scheduled(self._tickets, request, prompt, prompt.embeds))
        else:
            request.end_without_tokens()
            self._results[self._tickets] = request.result()
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Forget a request, wherever it stands. One that has ended stays to be collected.

        What it has run is kept for prompts that begin alike.
        """
        leave = partial(self._leave, ticket)
        self._looks_for_memory.when_free(lambda: self._turns.when_free(leave))

    def _leave(self, ticket: int) -> None:
        one = self._schedule.requests.get(ticket)
        if one is not None:
            before, self._broken = self._broken, True
            self._schedule.leave(one, keep=True)
            self._broken = before

    @property
    def _turns(self) -> Turns:
        return self._looks_for_memory if self.memory is None else self.memory.turns

    def model_changed(self) -> None:
        """Run everything again: weights were written to in a way that nobody sees (``tensor.data``)."""
        forget(self._model)
        self._runner = None

    def collect(self) -> dict[int, Generation[Text] | LolamaError]:
        """Ticket → result of each request that ended since the last call; the error, if it failed."""
        results, here = self._results, self._schedule.requests
        # What Ctrl-C has left here, though it has a result, ends with the next step.
        self._results = {ticket: results[ticket] for ticket in results if ticket in here}
        return {ticket: results[ticket] for ticket in results if ticket not in here}

    def step(self) -> list[tuple[int, Emission]]:
        """One token for each running row, and a chunk of the prompts that wait.

        Returns:
            Tickets, with what came of the tokens that were chosen.

        Raises:
            UsageError: if a step runs already.
            ResourceError: if the memory does not suffice. No prompt and no id is lost: the next step goes on.
                So it does after Ctrl-C, but a request whose token was just given out may end with an error.
        """
        if self._stepping.locked():
            raise UsageError("engine", "a step of it runs already", "use it from one thread")
        with memory_errors(self._model.device):
            run_inference(self._model.device, partial(while_locked, self._stepping, self._run_step))
        if not self._schedule.requests:
            self._runner = None
        emitted, self._emitted = self._emitted, []
        return emitted

    def _run_step(self) -> None:
        broken, self._broken, runner = self._broken, True, self._runner
        if runner is None or self._schedule.waiting or broken:  # else all have begun already
            runner = self._looks_for_memory.take(partial(self._current_runner, broken))
        assert self.memory is not None
        self.memory.turns.take(partial(self._step, runner, self.memory))
        self._broken = False
        if self._schedule.held_up:
            sleep(0.001)

    def _current_runner(self, broken: bool) -> CausalLM:
        """The runner of the model as it is now. What an earlier one has run, or a broken step, runs again."""
        self._runner = runner = runner_of(self._model)
        changed = self.memory is None or self.memory.model is not runner
        if broken or changed:  # at first, since prompts were submitted, maybe
            self._turns.take(partial(self._start_over, runner))
        if changed:
            self._schedule.memory = self.memory = self._memory_of(runner)
        self.speculation.start(runner)
        return runner

    def _start_over(self, runner: CausalLM) -> None:
        self._results |= self._schedule.broken_off()
        self._schedule.start_over(runner, self._results)

    def _step(self, runner: CausalLM, memory: RowMemory) -> None:
        try:
            self._schedule.make_room(runner)
            chunk = self._chunk or self._schedule.chunk(self.costs)
            parts = self._schedule.next_parts(chunk)
            measure = not chunk and bool(self._schedule.half_run)
            parts = self.speculation.ahead(parts, memory, measure=measure)
            counts, started = counted(parts), self.costs.clock()
            for together in passes(parts, memory):
                logits = run_pass(together, runner, memory)
                for place in self._schedule.ran(together):
                    self._choose(together[place][0], logits[place], memory)
            self.costs.note(*counts, self.costs.clock() - started)
        except TooLittleMemory as failure:
            self._results[failure.one.ticket] = failure.error
            self._schedule.leave(failure.one)

    def _choose(self, one: Scheduled, logits: Tensor, memory: RowMemory) -> None:
        """The next token of a request from logits (1, V), or its end; tokens, if it tries some ahead."""
        try:
            for emission in self.speculation.chosen(one, logits, memory):
                self._emitted.append((one.ticket, emission))
                one.given += 1
        except LolamaError as error:  # one row's broken logits are no other row's trouble
            self._results[one.ticket] = error.with_traceback(None)  # whose frames hold the request
            self._schedule.leave(one)
            return
        if one.request.finish_reason is not None:
            self._results[one.ticket] = one.request.result()
            self._schedule.leave(one, keep=True)
        elif len(one.request.tokens) == 1:
            memory.keep(one.row, one.keys)  # its logits are sound, so others may use it
