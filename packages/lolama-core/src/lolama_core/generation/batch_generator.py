"""Many prompts in one running batch: rows join and leave while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, Unpack, cast, overload

import torch
from torch import Tensor

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.keywords import Keywords
from lolama_core.generation.request import Generation, Request, Text
from lolama_core.generation.request_factory import RequestFactory, TextOrIds
from lolama_core.model.device import inference, memory_errors
from lolama_core.model.kv_cache import KVCache, own_cache
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.runtime.runner import runner_of
from lolama_core.text.plain_numbers import whole_number

_BLOCK = 256
"""The number of positions by which the cache grows."""


@dataclass
class _Row:
    """One request in the batch.

    Attributes:
        ticket: What the caller knows it by.
        embeds: (1, T, D), what of its prompt is not in the cache yet.
        token: The last token chosen, which is not in the cache yet either.
    """

    ticket: int
    request: Request
    embeds: Tensor
    token: int = 0


class BatchGenerator(Generic[Text]):
    """Generates for many prompts at once.

    In float32 each gets the tokens that it would get alone. In sixteen bits rows beside each other may be
    rounded differently, so what is chosen, sampled above all, may differ.

    A step decodes one token for every running row in one pass, which reads the weights once for all of
    them, and runs up to ``prefill_chunk`` positions of waiting prompts in another, so that a long prompt
    never stalls the rest. This is what a server stands on.

    Args:
        model: The model.
        tokenizer: Needed for texts, as prompts, as stop texts and in results.
        rows: Requests that run at the same time; others wait their turn.
        prefill_chunk: Positions of prompts that a step runs at most.

    Raises:
        UsageError: if either number is below 1.

    Example:
        >>> batch = BatchGenerator(model, tokenizer)
        >>> tickets = [batch.submit(text, max_new_tokens=20) for text in texts]
        >>> while batch.busy:
        ...     batch.step()
        >>> results = batch.collect()
    """

    # Rows of the cache in use are always the first ones, so that every pass sees a slice of it: running
    # rows, then at most one whose prompt is half run. A row that ends is filled from the back.

    @overload
    def __init__(
        self: BatchGenerator[None],
        model: CausalLM,
        tokenizer: None = None,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str],
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        *,
        rows: int = ...,
        prefill_chunk: int = ...,
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        *,
        rows: int = 16,
        prefill_chunk: int = 512,
    ) -> None:
        for name, number in (("rows", rows), ("prefill_chunk", prefill_chunk)):
            if (whole_number(number) or 0) < 1:
                raise UsageError(name, f"is {shown(number)}", "give a whole number, 1 or more")
        self._model, self._rows, self._chunk = model, rows, prefill_chunk
        self._runner: CausalLM | None = None
        self._factory = RequestFactory(model, tokenizer)
        self._waiting: deque[_Row] = deque()
        self._running: list[_Row] = []
        self._half_run: _Row | None = None
        self._cache: KVCache | None = None
        self._given: dict[int, list[int]] = {}
        self._results: dict[int, Generation[Text] | LolamaError] = {}
        self._tickets = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._running or self._waiting or self._half_run)

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
                self._waiting.append(_Row(self._tickets, request, prompt.embeds))
        return tickets

    @torch.inference_mode()
    def cancel(self, ticket: int) -> None:
        """Forget a request, wherever it stands. One that has ended stays to be collected."""
        self._waiting = deque(row for row in self._waiting if row.ticket != ticket)
        if self._half_run is not None and self._half_run.ticket == ticket:
            self._half_run = None
        for row in [row for row in self._running if row.ticket == ticket]:
            self._leave(row)

    def step(self) -> dict[int, list[int]]:
        """One token for each running row, and a chunk of the prompts that wait.

        Returns:
            Ticket → ids that may now be given out, often none; see `Emission`.

        Raises:
            ResourceError: if the memory does not suffice. No prompt and no id is lost: the next step goes on.
        """
        with memory_errors(self._model.device), inference(self._model.device):
            if self._runner is None or self._waiting:  # else all rows have begun already
                self._runner = runner_of(self._model)
            self._decode(self._runner)
            self._prefill(self._runner)
        if not self.busy:
            self._runner = None
        given, self._given = self._given, {}
        return given

    def collect(self) -> dict[int, Generation[Text] | LolamaError]:
        """Ticket → result of each request that ended since the last call; the error, if it failed."""
        results, self._results = self._results, {}
        return results

    def _decode(self, model: CausalLM) -> None:
        """A token more for each running row."""
        running = list(self._running)
        if not running or self._cache is None:
            return
        tokens = torch.tensor([[row.token] for row in running], device=self._model.device)
        cache = self._cache.rows(range(len(running)))
        logits = model.forward_embeds(model.embed(tokens), cache)
        cache.advance([1] * len(running))
        self._choose(running, logits)

    def _prefill(self, model: CausalLM) -> None:
        """Up to a chunk of the waiting prompts, in order; those that are through start to run."""
        rows, counts = self._next_chunk()
        if not rows:
            return
        cache = self._cache_for(rows)
        embeds = rows[0].embeds.new_zeros(len(rows), max(counts), rows[0].embeds.shape[-1])
        for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
            embeds[place, :count] = row.embeds[0, :count]
        logits = model.forward_embeds(embeds, cache, counts)
        cache.advance(counts)
        for row, count in zip(rows, counts, strict=True):
            row.embeds = row.embeds[:, count:]
            if row is not self._half_run:
                self._waiting.popleft()
        self._half_run = rows[-1] if rows[-1].embeds.shape[1] else None
        through = rows[:-1] if self._half_run is not None else rows
        self._running += through
        self._choose(through, logits)

    def _next_chunk(self) -> tuple[list[_Row], list[int]]:
        """Rows to prefill, and how much of each. All but the last are run to their ends."""
        rows: list[_Row] = []
        counts: list[int] = []
        half_run = [] if self._half_run is None else [self._half_run]
        for row in islice(chain(half_run, self._waiting), self._rows - len(self._running)):
            length = row.embeds.shape[1]
            # Rows are padded to the longest, so the budget counts padding too.
            room = self._chunk // (len(rows) + 1)
            if rows and max(length, *counts) > room:
                break
            rows.append(row)
            counts.append(min(length, self._chunk))
            if counts[-1] < length:
                break
        return rows, counts

    def _cache_for(self, rows: list[_Row]) -> KVCache:
        """The cache's rows for these requests, behind those that run, with room for each to its end."""
        needed = max(row.embeds.shape[1] + row.request.limit for row in rows)
        held = self._cache.lengths[len(self._running)] if self._half_run and self._cache else 0
        capacity = min(-(-(needed + held) // _BLOCK) * _BLOCK, self._model.max_seq_len)
        if self._cache is None:
            self._cache = own_cache(self._model.make_cache(self._rows, capacity))
        elif capacity > self._cache.capacity:
            self._cache.grow(capacity)
        places = range(len(self._running), len(self._running) + len(rows))
        fresh = places if self._half_run is None else places[1:]
        if fresh:
            self._cache.rows(fresh).reset()
        return self._cache.rows(places)

    def _choose(self, rows: list[_Row], logits: Tensor) -> None:
        """A token for each row from logits (B, V), B ≥ len(rows); those that end with it leave."""
        for place, row in enumerate(rows):
            given = self._given.setdefault(row.ticket, [])
            try:
                emission = row.request.step(logits[place : place + 1])
            except LolamaError as error:  # one row's broken logits are no other row's trouble
                self._results[row.ticket] = error
                self._leave(row)
                continue
            row.token = emission.token
            given += emission.ids
            if emission.finish_reason is not None:
                self._results[row.ticket] = cast("Generation[Text]", row.request.result())
                self._leave(row)

    def _leave(self, row: _Row) -> None:
        """Take a row out of the batch, and close the gap in the cache."""
        place, last = self._running.index(row), len(self._running) - 1
        assert self._cache is not None
        self._cache.rows([place]).reset()  # it may hold NaN, which no mask would stop
        if place != last:
            self._cache.copy_rows([last], [place])
        self._running[place] = self._running[last]
        self._running.pop()
        if self._half_run is not None:
            self._cache.copy_rows([last + 1], [last])
