"""Which requests of a batch run, and which wait for their turn or for memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import torch
from torch import Tensor

from lolama_core.generation.request import Request
from lolama_core.protocols import CausalLM
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory


@dataclass(eq=False)
class Scheduled:
    """A request in a batch.

    Attributes:
        ticket: What the caller knows it by. Later requests have greater ones.
        request: Chooses its tokens.
        prompt: As the model reads it, one row.
        embeds: (1, T, D), what is to be run before its next token can be chosen.
        tokens: The tokens chosen so far. The last is not in the cache yet.
        row: Its keys and values.
        begun: Whether it may take memory for these.
    """

    ticket: int
    request: Request
    prompt: Prompt
    embeds: Tensor
    tokens: list[int] = field(default_factory=list)
    row: Row = field(default_factory=Row)
    begun: bool = False

    @property
    def length(self) -> int:
        """Positions of it so far, those of tokens that are to be run included."""
        return self.prompt.lengths[0] + len(self.tokens)

    @property
    def first_positions(self) -> int:
        """Positions that it begins with: those so far, and the next one.

        The last token that it may have never runs, so it has no position.
        """
        return min(self.length + 1, self.prompt.lengths[0] + self.request.limit - 1)

    @property
    def keys(self) -> list[PromptKey]:
        """The keys of its positions, tokens included; none if those of its prompt are not known."""
        [own] = self.prompt.keys
        return [*own, *self.tokens] if len(own) == self.prompt.lengths[0] else []


class TooLittleMemory(Exception):
    """A request does not fit into the memory for keys and values, even alone; ``positions`` are too many."""

    def __init__(self, one: Scheduled, positions: int) -> None:
        self.one, self.positions = one, positions


class Schedule:
    """The order of the requests of a batch. Who comes first is served first, and who came last gives way.

    Args:
        memory: Where their keys and values are.
        rows: Requests that run at the same time.
        chunk: Positions of prompts that run in one pass.

    Attributes:
        waiting: Requests that hold nothing, in the order of their tickets.
        running: Those with a token that is to be run.
        half_run: The one whose prompt is run in part, if there is one.
    """

    def __init__(self, memory: RowMemory, rows: int, chunk: int) -> None:
        self._memory, self._rows, self._chunk = memory, rows, chunk
        self.waiting: deque[Scheduled] = deque()
        self.running: list[Scheduled] = []
        self.half_run: Scheduled | None = None

    def add(self, one: Scheduled) -> None:
        """Let a new request wait behind all others."""
        self.waiting.append(one)

    @property
    def begun(self) -> list[Scheduled]:
        """The requests that hold keys and values, in the order of their tickets."""
        half_run = [] if self.half_run is None else [self.half_run]
        return sorted([*self.running, *half_run], key=lambda one: one.ticket)

    def next_chunk(self) -> tuple[list[Scheduled], list[int]]:
        """Requests whose prompts run now, and how much of each. All but the last are run to their ends.

        Raises:
            TooLittleMemory: for one that will not fit, even alone.
        """
        chosen: list[Scheduled] = []
        counts: list[int] = []
        half_run = [] if self.half_run is None else [self.half_run]
        for one in islice(chain(half_run, self.waiting), self._rows - len(self.running)):
            length = one.embeds.shape[1]
            if not one.begun:
                length -= self._memory.known(one.keys[:-1])
            # Rows are padded to the longest, so the budget counts padding too.
            room = self._chunk // (len(chosen) + 1)
            if chosen and max(length, *counts) > room:
                break
            if not one.begun and self._may_share(one, chosen):
                break
            if not self._begins(one):
                if not self.begun and not chosen:
                    raise TooLittleMemory(one, one.first_positions)
                break
            length = one.embeds.shape[1]
            chosen.append(one)
            counts.append(min(length, self._chunk))
            if counts[-1] < length:
                break
        return chosen, counts

    def _may_share(self, one: Scheduled, chosen: Sequence[Scheduled]) -> bool:
        """Whether a prompt that runs now shares a page more with its own than what is known already."""
        runs = [*chosen]
        if self.half_run is not None and self.half_run not in chosen:
            runs.append(self.half_run)
        keys = one.keys[:-1]
        more = PAGE + (self._memory.known(keys) if runs else 0)
        return len(keys) >= more and any(each.keys[:more] == keys[:more] for each in runs)

    def _begins(self, one: Scheduled) -> bool:
        """Whether it holds memory, or gets it now. A page is left for each that runs."""
        if not one.begun:
            most = one.prompt.lengths[0] + one.request.limit
            one.begun = self._memory.begin(
                one.row, one.keys, one.first_positions, most, spare=len(self.running)
            )
            if one.begun:
                # Not what it had run itself before it was put back.
                if one.embeds is one.prompt.embeds:
                    one.request.cached_tokens = one.row.length
                one.embeds = one.embeds[:, one.row.length :]
        return one.begun

    def ran(self, chosen: Sequence[Scheduled], counts: Sequence[int]) -> list[Scheduled]:
        """Note that so much of these prompts has run.

        Returns:
            Those whose whole prompt has run. They decode from now on.
        """
        for one, count in zip(chosen, counts, strict=True):
            one.embeds = one.embeds[:, count:]
        prefilled = [one for one in chosen if not one.embeds.shape[1]]
        self.running += prefilled
        self.half_run = next((one for one in chosen if one.embeds.shape[1]), None)
        # Last, since an interrupt between these lines must lose none.
        for one in chosen:
            if one in self.waiting:
                self.waiting.remove(one)
        return prefilled

    def make_room(self, model: CausalLM) -> None:
        """Put the last requests back until each that runs has memory for its next position.

        Raises:
            TooLittleMemory: for the only one that is left.
        """
        while not self._memory.has_next([one.row for one in self.running]):
            *others, last = self.begun
            if not others:
                raise TooLittleMemory(last, last.length)
            self.put_back(last, model)

    def put_back(self, one: Scheduled, model: CausalLM) -> None:
        """Let it wait, in front of those that came later, and run again from its beginning."""
        tokens = torch.tensor([one.tokens], dtype=torch.int64, device=model.device)
        embeds = torch.cat((one.prompt.embeds, model.embed(tokens)), dim=1)
        self.leave(one, keep=True)
        one.embeds = embeds
        self.waiting.appendleft(one)

    def break_off(self, model: CausalLM) -> None:
        """Put those back that an error has left within a step.

        They have memory for a prompt that did not run, or positions for which no token was chosen.
        """
        for one in reversed([*self.begun, *(one for one in self.waiting if one.begun)]):
            waits = one in self.waiting
            to_run = 1 if one in self.running else one.embeds.shape[1]
            if waits or self._memory.held(one.row) + to_run != one.length:
                self.put_back(one, model)

    def leave(self, one: Scheduled, *, keep: bool = False) -> None:
        """Take a request out and free its memory. With ``keep`` others may go on from what it ran."""
        if one in self.waiting:
            self.waiting.remove(one)
        if one in self.running:
            self.running.remove(one)
        if one is self.half_run:
            self.half_run = None
        if one.begun:
            if keep:
                self._memory.keep(one.row, one.keys)
            self._memory.end(one.row)
        one.begun = False
