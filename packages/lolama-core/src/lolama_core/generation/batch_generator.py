"""Many prompts in one running batch: rows join and leave while it runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Unpack, cast, overload

import torch
from torch import Tensor

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import Keywords
from lolama_core.generation.request import Generation, Text
from lolama_core.generation.request_factory import RequestFactory, TextOrIds
from lolama_core.generation.schedule import Schedule, Scheduled, TooLittleMemory
from lolama_core.model.device import inference, memory_errors
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of
from lolama_core.text.plain_numbers import whole_number


class BatchGenerator(Generic[Text]):
    """Generates for many prompts at once.

    In float32 each gets the tokens that it would get alone. In sixteen bits, and with int8 weights, rows
    beside each other may be rounded differently, so what is chosen, sampled above all, may differ.

    A step decodes one token for every running row in one pass, which reads the weights once for all of
    them, and runs up to ``prefill_chunk`` positions of waiting prompts in another, so that a long prompt
    never stalls the rest. This is what a server stands on.

    Keys and values take memory as a text grows, whatever its settings allow. When ``cache_bytes`` are used,
    the request that came last is put back. It waits, and later goes on from where it was. What several texts
    begin with is run once. It is kept as long as no request needs the memory.

    Args:
        model: The model.
        tokenizer: Needed for texts, as prompts, as stop texts and in results.
        rows: Requests that run at the same time; others wait their turn.
        prefill_chunk: Positions of prompts that a step runs at most.
        cache_bytes: What keys and values may take, in bytes; None for four fifths of the memory that is free
            when the first request runs.

    Raises:
        UsageError: if a number is below 1.

    Example:
        >>> batch = BatchGenerator(model, tokenizer)
        >>> tickets = [batch.submit(text, max_new_tokens=20) for text in texts]
        >>> while batch.busy:
        ...     batch.step()
        >>> results = batch.collect()
    """

    @overload
    def __init__(
        self: BatchGenerator[None],
        model: CausalLM,
        tokenizer: None = None,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
        cache_bytes: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str],
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
        cache_bytes: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
        cache_bytes: int | None = ...,
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        rows: int = 16,
        prefill_chunk: int = 512,
        cache_bytes: int | None = None,
    ) -> None:
        numbers = {"rows": rows, "prefill_chunk": prefill_chunk}
        if cache_bytes is not None:
            numbers["cache_bytes"] = cache_bytes
        for name, number in numbers.items():
            if (whole_number(number) or 0) < 1:
                raise UsageError(name, f"is {shown(number)}", "give a whole number, 1 or more")
        self._model = model
        self._runner: CausalLM | None = None
        self._ran_by: weakref.ref[CausalLM] | None = None
        self._factory = RequestFactory(model, tokenizer)
        self._memory = RowMemory(model, rows, cache_bytes)
        self._schedule = Schedule(self._memory, rows, prefill_chunk)
        self._given: dict[int, list[int]] = {}
        self._results: dict[int, Generation[Text] | LolamaError] = {}
        self._tickets = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._schedule.waiting or self._schedule.begun)

    @property
    def used_cache_bytes(self) -> int:
        """Bytes that keys and values of all requests take now, without those that are merely kept."""
        return self._memory.used_bytes

    @property
    def kept_cache_bytes(self) -> int:
        """Bytes kept of requests that have ended, for prompts that begin alike. Others may take them."""
        return self._memory.idle_bytes

    def submit(
        self,
        input_ids: TextOrIds,
        config: GenerationConfig | None = None,
        *,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[Keywords],
    ) -> int:
        """Add a prompt; arguments as for `TextGenerator.generate_stream`. It joins at the next step.

        Returns:
            A ticket, by which `step` and `collect` name it.

        Raises:
            UsageError: for settings, ids or inputs that make no sense.
        """
        [ticket] = self.submit_all([input_ids], [config], logits_processors, settings)
        return ticket

    def submit_all(
        self,
        prompts: Sequence[TextOrIds],
        configs: Sequence[GenerationConfig | None],
        logits_processors: Sequence[LogitsProcessor],
        settings: Mapping[str, Any],
    ) -> list[int]:
        """`submit` for several prompts that share their processors, settings and model inputs.

        Returns:
            A ticket for each.

        Raises:
            UsageError: as `submit`; then none of them has joined.
        """
        tickets = []
        made = self._factory.requests(prompts, configs, logits_processors, settings)
        for request, prompt in made:
            self._tickets += 1
            tickets.append(self._tickets)
            if request.finish_reason is not None:
                self._results[self._tickets] = cast("Generation[Text]", request.result())
            else:
                one = Scheduled(self._tickets, request, prompt, prompt.embeds)
                self._schedule.add(one)
        return tickets

    def cancel(self, ticket: int) -> None:
        """Forget a request, wherever it stands. One that has ended stays to be collected."""
        for one in (*self._schedule.waiting, *self._schedule.begun):
            if one.ticket == ticket:
                self._schedule.leave(one, keep=True)

    def step(self) -> dict[int, list[int]]:
        """One token for each running row, and a chunk of the prompts that wait.

        Returns:
            Ticket → ids that may now be given out, often none; see `Emission`.

        Raises:
            ResourceError: if the memory does not suffice. No prompt and no id is lost: the next step goes on.
        """
        with memory_errors(self._model.device), inference(self._model.device):
            if self._runner is None or self._schedule.waiting:  # else all have begun already
                self._runner = self._current_runner()
            try:
                self._decode(self._runner)
                self._prefill(self._runner)
            except TooLittleMemory as error:
                self._refuse(error.one, error.positions)
            except BaseException:
                self._schedule.break_off(self._runner)
                raise
        if not self.busy:
            self._runner = None
        given, self._given = self._given, {}
        return given

    def _current_runner(self) -> CausalLM:
        """The runner of the model as it is now. What an earlier one has run is run again."""
        runner = runner_of(self._model)
        if self._ran_by is not None and self._ran_by() is not runner:
            for one in reversed(self._schedule.begun):
                self._schedule.put_back(one, runner)
            self._memory.forget()
        self._ran_by = weakref.ref(runner)
        return runner

    def collect(self) -> dict[int, Generation[Text] | LolamaError]:
        """Ticket → result of each request that ended since the last call; the error, if it failed."""
        results, self._results = self._results, {}
        return results

    def _decode(self, model: CausalLM) -> None:
        """A token more for each running request."""
        self._schedule.make_room(model)
        running = list(self._schedule.running)
        for places, cache in self._memory.passes([one.row for one in running]):
            together = [running[place] for place in places]
            last = [[one.tokens[-1]] for one in together]
            tokens = torch.tensor(last, device=self._model.device)
            logits = model.forward_embeds(model.embed(tokens), cache)
            cache.advance([1] * len(together))
            self._choose(together, logits)

    def _prefill(self, model: CausalLM) -> None:
        """Up to a chunk of the waiting prompts, in order; those that are through start to run."""
        chosen, counts = self._schedule.next_chunk()
        for places, cache in self._memory.passes([one.row for one in chosen]):
            together = [chosen[place] for place in places]
            lengths = [counts[place] for place in places]
            embeds = together[0].embeds
            padded = embeds.new_zeros(len(together), max(lengths), embeds.shape[-1])
            for place, (one, length) in enumerate(zip(together, lengths, strict=True)):
                padded[place, :length] = one.embeds[0, :length]
            logits = model.forward_embeds(padded, cache, lengths)
            cache.advance(lengths)
            self._choose(self._schedule.ran(together, lengths), logits)

    def _choose(self, together: list[Scheduled], logits: Tensor) -> None:
        """A token for each from logits (B, V), B ≥ len(together); those that end with it leave."""
        for place, one in enumerate(together):
            given = self._given.setdefault(one.ticket, [])
            try:
                emission = one.request.step(logits[place : place + 1])
            except LolamaError as error:  # one row's broken logits are no other row's trouble
                self._results[one.ticket] = error
                self._schedule.leave(one)
                continue
            one.tokens.append(emission.token)
            given += emission.ids
            if emission.finish_reason is not None:
                self._results[one.ticket] = cast("Generation[Text]", one.request.result())
                self._schedule.leave(one, keep=True)
            elif len(one.tokens) == 1:
                self._memory.keep(one.row, one.keys)  # its logits are sound, so others may use it

    def _refuse(self, one: Scheduled, positions: int) -> None:
        """Fail a request for which the memory does not suffice though it is alone."""
        self._schedule.leave(one)
        self._results[one.ticket] = ResourceError(
            "KV cache",
            f"{positions:,} positions do not fit into the memory that it may take",
            "give it more with `cache_bytes`, or shorten the text",
        )
