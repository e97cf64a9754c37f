"""Which requests of an engine run, and which wait for their turn or for memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice
from time import monotonic

import torch

from lolama_core.generation.pass_costs import PassCosts
from lolama_core.generation.request_factory import embedded_again
from lolama_core.generation.scheduled import NO_DRAFT, Part, Scheduled
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError
from lolama_core.protocols.generation import Generation
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory

_OLDEST_FIRST = 4
"""Every fourth chunk goes to the prompt that came first."""

_WORTH_WAITING = 2
"""A prompt waits for one that it shares pages with, if that has at most twice as much to run."""

_PATIENCE = 60.0
"""Seconds that a request waits for rows of other threads that hold the memory and do not go on."""

_LONGEST_STEP = 1.0
"""Seconds of these between two looks: the process may have been stopped, as by Ctrl-Z, and they with it."""

_BROKEN_OFF = "was broken off while a token was given out", "submit it again"


class TooLittleMemory(Exception):
    """A request does not fit into the memory for keys and values, even alone.

    Attributes:
        one: The request.
        error: What its caller is told.
    """

    def __init__(self, one: Scheduled, positions: int, memory: RowMemory) -> None:
        self.one = one
        more = "give it more with `cache_bytes`" if memory.is_limited else "free some memory"
        self.error = ResourceError(
            "KV cache",
            f"{positions:,} positions do not fit into the memory that it may take",
            f"{more}, or shorten the text",
        )


class Schedule:
    """The order of the requests of an engine.

    Who comes first gets memory first, and who came last gives it back. Of the prompts that have memory the
    shortest runs first, but each fourth chunk belongs to the oldest.

    Args:
        rows: Requests that run at the same time.

    Attributes:
        memory: Where their keys and values are. It has to be set before any of them runs.
        requests: Ticket → request, of all that are here.
        waiting: Requests that hold nothing, in the order of their tickets.
        half_run: Those with a part of their prompt that is to be run.
        running: Those with a token that is to be run.
        held_up: Whether all of them wait for rows of other threads, which hold the memory.
    """

    memory: RowMemory

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._chunks = 0
        self.requests: dict[int, Scheduled] = {}
        self.waiting: deque[Scheduled] = deque()
        self.half_run: list[Scheduled] = []
        self.running: list[Scheduled] = []
        self.held_up = False
        self._others: list[tuple[Row, int]] = []
        self._looked = self._waited = 0.0

    def add(self, one: Scheduled) -> None:
        """Let a request wait for its turn, unless it has had one."""
        if one.request.taken:
            raise UsageError("request", "was added before", "prepare one for each text")
        one.request.taken = True
        self.requests[one.ticket] = one
        self.waiting.append(one)

    @property
    def begun(self) -> list[Scheduled]:
        """The requests that hold keys and values, in the order of their tickets."""
        # An interrupt may have left one in both lists.
        return sorted({*self.running, *self.half_run}, key=lambda one: one.ticket)

    def chunk(self, costs: PassCosts) -> int:
        """Positions of prompts that may run beside the rows that decode."""
        return costs.chunk(len(self.running), self.memory.skips_padding)

    def next_parts(self, chunk: int) -> list[Part]:
        """What runs next: a position of each request that decodes, and a chunk of the prompts.

        Args:
            chunk: Positions of prompts.

        Raises:
            TooLittleMemory: for a request that will not fit, even alone.
        """
        self._admit()
        parts = [(one, 1) for one in self.running]
        in_order = sorted(self.half_run, key=lambda one: (one.to_run, one.ticket))
        if in_order and self._chunks % _OLDEST_FIRST == _OLDEST_FIRST - 1:
            oldest = min(in_order, key=lambda one: one.ticket)
            in_order = [oldest, *(one for one in in_order if one is not oldest)]
        self._chunks += bool(in_order) and chunk > 0
        self.held_up = not self.begun
        for one in in_order:
            if chunk <= 0:
                break
            # A row whose keys change as it grows runs from its beginning for each chunk.
            count = one.to_run if self.memory.rows_run_alone else one.uncut(chunk)
            parts.append((one, count))
            chunk -= count
        return parts

    def _admit(self) -> None:
        """Give memory to those that wait, in their order."""
        free = self._rows - len(self.running) - len(self.half_run)
        for one in [*islice(self.waiting, max(free, 0))]:
            if self._may_share(one):
                continue
            if not self._begins(one):
                if not self.begun and not self._others_go_on():
                    raise TooLittleMemory(one, one.first_positions, self.memory)
                return
            self.half_run.append(one)
            self.waiting.remove(one)

    def _others_go_on(self) -> bool:
        """Whether rows of other threads have memory that they may give back.

        Nobody waits for rows of its own thread, since they go on in no step of this engine.
        """
        alive = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        rows = [row for row in self.memory.rows if row.thread in alive]
        others, before = [(row, self.memory.held(row)) for row in rows], self._looked
        self._looked = monotonic()
        if others != self._others or not self.held_up:
            self._others, self._waited = others, 0.0
        else:
            self._waited += min(self._looked - before, _LONGEST_STEP)
        return bool(others) and self._waited < _PATIENCE

    def _may_share(self, one: Scheduled) -> bool:
        """Whether a prompt that is half run shares a page more with this one than what is known already."""
        if not self.half_run or one.reads_prompt:
            return False
        keys = one.keys[:-1]
        known = self.memory.known(keys)
        more, most = known + PAGE, _WORTH_WAITING * (one.to_run - known)
        return len(keys) >= more and any(
            each.to_run <= most and each.keys[:more] == keys[:more] for each in self.half_run
        )

    def _begins(self, one: Scheduled) -> bool:
        """Whether it gets memory now. A page is left for each that runs."""
        one.begun = True  # wherever Ctrl-C comes, it gives back what it has got
        one.begun = self.memory.begin(
            one.row,
            # Logits of positions that are not run are known to nobody.
            [] if one.reads_prompt else one.keys,
            one.first_positions,
            max(one.most_positions, one.length),
            spare=len(self.running),
        )
        if one.begun:
            # Not what it had run itself before it was put back.
            if not one.ran:
                one.request.cached_tokens = one.row.length
            one.ran = True
            one.embeds = one.embeds[:, one.row.length :]
        return one.begun

    def ran(self, parts: Sequence[Part]) -> list[int]:
        """Note what has run.

        Returns:
            The places of those whose next token can be chosen. They decode from now on.
        """
        through = []
        for place, (one, count) in enumerate(parts):
            if one.to_run:
                one.embeds = one.embeds[:, count:]
            if not one.to_run:
                through.append(place)
                if one in self.half_run:
                    self.running.append(one)
                    self.half_run.remove(one)
        return through

    def make_room(self, model: CausalLM) -> None:
        """Put the last requests back until each that runs has memory for its next position.

        Raises:
            TooLittleMemory: for the only one that is left.
        """
        while not self.memory.has_room([one.row for one in self.running], [1] * len(self.running)):
            *others, last = self.begun
            if not others and not self._others_go_on():
                raise TooLittleMemory(last, last.length, self.memory)
            self.put_back(last, model)

    def put_back(self, one: Scheduled, model: CausalLM) -> None:
        """Let it wait, between those that came before and later, and run again from its beginning."""
        embeds = embedded_again(one.request, one.prompt, model).embeds
        if one.request.tokens:
            tokens = torch.tensor([one.request.tokens], dtype=torch.int64, device=model.device)
            embeds = torch.cat((embeds, model.embed(tokens)), dim=1)
        self._free(one, keep=True)
        one.embeds, one.draft = embeds, NO_DRAFT
        later = (place for place, each in enumerate(self.waiting) if each.ticket > one.ticket)
        self.waiting.insert(next(later, len(self.waiting)), one)

    def start_over(self, model: CausalLM, ended: Collection[int]) -> None:
        """Let all wait, and run again: with another model, or since Ctrl-C may have broken off any change.

        Args:
            model: What runs them.
            ended: Tickets of those that do not, since they have a result.
        """
        self.half_run, self.running = [], []
        self.waiting.clear()
        for ticket in self.requests.keys() & ended:
            self.leave(self.requests[ticket])
        for _, one in sorted(self.requests.items(), reverse=True):
            self.put_back(one, model)

    def broken_off(self) -> dict[int, Generation[str | None] | LolamaError]:
        """Ticket → result of those that a broken step has left at their end, or within a token."""
        results: dict[int, Generation[str | None] | LolamaError] = {}
        for one in [*self.requests.values()]:
            if len(one.request.tokens) != one.given:
                results[one.ticket] = LolamaError("generation", *_BROKEN_OFF)
            elif one.request.finish_reason is not None:
                results[one.ticket] = one.request.result()
        return results

    def leave(self, one: Scheduled, *, keep: bool = False) -> None:
        """Take a request out and free its memory. With ``keep`` others may go on from what it ran."""
        self._free(one, keep=keep)
        self.requests.pop(one.ticket, None)

    def _free(self, one: Scheduled, *, keep: bool) -> None:
        for places in (self.waiting, self.half_run, self.running):
            while one in places:
                places.remove(one)
        if one.begun:
            if keep:
                self.memory.keep(one.row, one.keys)
            self.memory.end(one.row)
        one.begun = False
