"""The memory of keys and values in pages: rows take them as they grow, may share them, and give them back."""

from __future__ import annotations

import mmap
import sys
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lolama_core.model.kv_cache import KVCache

PAGE = 32
"""Positions of a page."""

_FIRST = 64
"""Pages to begin with where memory is taken at once."""


def pages_for(positions: int) -> int:
    """How many pages hold them."""
    return -(-positions // PAGE)


class NoPages(Exception):
    """Fewer pages are free than a row needs. Nothing has changed."""


class Pages:
    """The memory of keys and values of many rows.

    Each layer has a piece of memory for keys and one for values, (K, positions, head_dim). A page is 32
    positions of them all, and neighboring pages are one piece. On a CPU the pieces are address space, of
    which only what was touched takes memory. Elsewhere they grow, by copying, to twice their size.

    Args:
        like: A cache of the model, for its sizes, dtype and device.
        limit: How many pages there may ever be.
        first: How many there are at first; all of them if nobody says so and the device is a CPU.

    Attributes:
        keys, values: For each layer (pages, K, PAGE, head_dim): views, in which the pages of a head lie one
            behind another.
        reclaim: Called with a number of idle pages that are to be given back.
        idle: How many pages only their keeper has; see `keep`.
    """

    def __init__(self, like: KVCache, limit: int, first: int | None = None) -> None:
        parts = like.write_in_place(like.reserve([0] * like.batch_size, 0))
        if first is None and like.device.type == "cpu":
            self.keys, self.values = _mapped(parts, limit)
            limit = len(self.keys[0])
        else:
            count = min(limit, first or _FIRST)
            self.keys, self.values = ([_memory(layer, count) for layer in part] for part in parts)
        self._limit, count = limit, len(self.keys[0])
        self._uses = [0] * count
        # Free pages, in order: the first of each gap, and the page behind its last.
        self._gaps = [(0, count)]
        self._kept: set[int] = set()
        self.reclaim: Callable[[int], None] = lambda count: None
        self.idle = 0

    @property
    def _free(self) -> int:
        return sum(end - begin for begin, end in self._gaps)

    @property
    def left(self) -> int:
        """Pages that can still be taken: free ones, and idle ones."""
        return self._limit - len(self._uses) + self._free + self.idle

    @property
    def page_bytes(self) -> int:
        """Bytes of a page, all layers."""
        return sum(layer[0].nbytes for layer in (*self.keys, *self.values))

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages that somebody has, each counted once, without idle ones."""
        return (len(self._uses) - self._free - self.idle) * self.page_bytes

    def is_idle(self, page: int) -> bool:
        """Whether only its keeper has it."""
        return page in self._kept and self._uses[page] == 1

    def _grow(self) -> None:
        """More pages behind those that there are; a gap at the end grows."""
        count = len(self._uses)
        more = min(count, self._limit - count)
        for part in (self.keys, self.values):
            for layer, old in enumerate(part):
                part[layer] = _memory(old, count + more)
                # It is longer if there was no memory for a later layer the last time.
                part[layer][:count] = old[:count]
        self._uses += [0] * more
        self._add_gap(count, count + more)

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Pages for a row: the one behind ``after`` and those behind it if they are free, else others.

        What is in them is not known.

        Raises:
            NoPages: if there are not as many. Nobody has any of them then.
        """
        if count > self.left:
            raise NoPages(f"{count} pages are needed, and {self.left} are left")
        while count > self._free:
            if len(self._uses) < self._limit:
                self._grow()
            else:
                self.reclaim(count - self._free)
        taken: list[int] = []
        while len(taken) < count:
            page, place = self._next(taken[-1] if taken else after)
            begin, end = self._gaps[place]
            stop = min(end, page + count - len(taken))
            self._gaps[place : place + 1] = [
                gap for gap in ((begin, page), (stop, end)) if gap[0] < gap[1]
            ]
            taken += range(page, stop)
        for page in taken:
            self._uses[page] = 1
        return taken

    def _next(self, after: int | None) -> tuple[int, int]:
        """A free page, and which gap it is in."""
        if after is not None:
            place = bisect(self._gaps, (after, len(self._uses)))
            if place < len(self._gaps) and self._gaps[place][0] == after + 1:
                return after + 1, place
        place = max(range(len(self._gaps)), key=lambda i: self._gaps[i][1] - self._gaps[i][0])
        begin, end = self._gaps[place]
        # In the middle of it, since whoever has the page before it may grow.
        return (begin + (end - begin) // 2 if begin else 0), place

    def copy(self, page: int, after: int | None = None) -> int:
        """A page with the same in it; see `take`."""
        (copied,) = self.take(1, after)
        for layer in (*self.keys, *self.values):
            layer[copied] = layer[page]
        return copied

    def share(self, pages: Iterable[int]) -> None:
        """Let somebody else have them, too."""
        for page in pages:
            assert self._uses[page]
            self.idle -= self.is_idle(page)
            self._uses[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        """Have them no more. Those that nobody else has are free."""
        for page in pages:
            assert self._uses[page]
            self._uses[page] -= 1
            self.idle += self.is_idle(page)
            if not self._uses[page]:
                self._add_gap(page, page + 1)

    def keep(self, page: int) -> None:
        """Have a page that others have, too. Once they do not, it is idle, and can be reclaimed."""
        self.share([page])
        self._kept.add(page)

    def forget(self, page: int) -> None:
        """Keep it no more."""
        self.idle -= self.is_idle(page)
        self._kept.remove(page)
        self.give_back([page])

    def _add_gap(self, begin: int, end: int) -> None:
        """Make these a gap, or a part of the gaps beside them."""
        place = bisect(self._gaps, (begin, begin))
        if place < len(self._gaps) and self._gaps[place][0] == end:
            end = self._gaps.pop(place)[1]
        if place and self._gaps[place - 1][1] == begin:
            place -= 1
            begin = self._gaps.pop(place)[0]
        self._gaps.insert(place, (begin, end))


def _mapped(parts: Sequence[Sequence[Tensor]], count: int) -> list[list[Tensor]]:
    """Memory for ``count`` pages, or for fewer if there is not so much address space.

    Then it is half of what there is: the rest of the process needs some, too. A process may have a limit
    (``ulimit -v``), or a system that promises no more than it has.
    """
    asked = count
    while True:
        try:
            made = [[_memory(layer, count) for layer in part] for part in parts]
        except MemoryError:
            if count == 1:
                raise
            count //= 2
            continue
        if count == asked:
            return made
        del made
        asked = count = max(1, count // 2)


def _memory(like: Tensor, count: int) -> Tensor:
    """(count, K, PAGE, hd), with the pages of a head behind each other; ``like`` is (any, K, any, hd)."""
    _, heads, _, width = like.shape
    shape = (heads, count, PAGE, width)
    with torch.inference_mode(False):
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device).transpose(0, 1)
        size = heads * count * PAGE * width * like.itemsize
        # The system maps address space, and takes memory for what is touched of it alone.
        flags = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
        try:
            mapped = mmap.mmap(-1, size, **flags)
        except OSError as error:
            raise MemoryError(str(error)) from None
        raw = torch.frombuffer(mapped, dtype=torch.uint8)
        return raw.view(like.dtype).view(shape).transpose(0, 1)
