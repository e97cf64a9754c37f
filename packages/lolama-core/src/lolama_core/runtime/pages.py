"""The memory of keys and values in pages: rows take them as they grow, may share them, and give them back."""

from __future__ import annotations

import mmap
import sys
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from math import prod

import torch
from torch import Tensor

from lolama_core.model.kv_cache import KVCache
from lolama_core.protocols.inference import ordinary
from lolama_core.runtime.int8_cache import CacheDtype, quantized

PAGE = 32
"""Positions of a page."""

_ROOM = 16
"""Pages that are left for a row to grow before the next one begins, where there are as many."""

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
        cache_dtype: What keys and values are stored in; None for the dtype of ``like``.

    Attributes:
        keys, values: For each layer (pages, K, PAGE, head_dim): views, in which the pages of a head lie one
            behind another. In int8 (pages, K, PAGE, head_dim + 2), see `int8_cache`.
        dtype: What attention is given them in.
        cache_dtype: As it was given.
        reclaim: Called with a number of idle pages that are to be given back.
        idle: How many pages only their keeper has; see `keep`.
    """

    def __init__(
        self,
        like: KVCache,
        limit: int,
        first: int | None = None,
        cache_dtype: CacheDtype | None = None,
    ) -> None:
        keys, values = _as_stored(like, cache_dtype)
        self.dtype, self.cache_dtype = like.dtype, cache_dtype
        count = min(limit, first or _FIRST)
        self._address_space: mmap.mmap | None = None
        if first is None and like.device.type == "cpu":
            self._address_space, limit = _address_space([*keys, *values], limit)
            count = limit
        memory = _memory([*keys, *values], count, self._address_space)
        self.keys, self.values = memory[: len(keys)], memory[len(keys) :]
        self._limit = limit
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
        self._address_space = None  # what has grown lies elsewhere
        for part in (self.keys, self.values):
            for layer, old in enumerate(part):
                [part[layer]] = _memory([old], count + more)
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
            page, place = self._next(count - len(taken), taken[-1] if taken else after)
            begin, end = self._gaps[place]
            stop = min(end, page + count - len(taken))
            self._gaps[place : place + 1] = [
                gap for gap in ((begin, page), (stop, end)) if gap[0] < gap[1]
            ]
            taken += range(page, stop)
        for page in taken:
            self._uses[page] = 1
        return taken

    def _next(self, count: int, after: int | None) -> tuple[int, int]:
        """A free page for the first of ``count``, and which gap it is in."""
        if after is not None:
            place = bisect(self._gaps, (after, len(self._uses)))
            if place < len(self._gaps) and self._gaps[place][0] == after + 1:
                return after + 1, place
        # The first gap that is wide enough: what was touched in it before takes no further memory.
        room = max(count, _ROOM)
        sizes = [end - begin for begin, end in self._gaps]
        wide = (i for i, size in enumerate(sizes) if size >= 3 * room)
        place = next(wide, sizes.index(max(sizes)))
        begin, _ = self._gaps[place]
        # Whoever has the page before the gap may grow, and so may this one.
        return (begin + min(room, sizes[place] // 2) if begin else 0), place

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

    def release(self) -> bool:
        """Give the system back what was touched of pages, of which nobody has any; False if it takes none."""
        assert self._free == len(self._uses)
        if self._address_space is None or not hasattr(mmap, "MADV_DONTNEED"):
            return False
        self._address_space.madvise(mmap.MADV_DONTNEED)
        return True

    def recount(self, had: Iterable[int], kept: Iterable[int]) -> None:
        """Count anew who has which page, after Ctrl-C in the middle of a change.

        Args:
            had: The pages of each row, one row after another.
            kept: See `keep`.
        """
        self._kept = set(kept)
        self._uses = [0] * len(self._uses)
        for page in (*had, *self._kept):
            self._uses[page] += 1
        self.idle = sum(map(self.is_idle, self._kept))
        self._gaps = []
        for page, uses in enumerate(self._uses):
            if not uses:
                self._add_gap(page, page + 1)

    def _add_gap(self, begin: int, end: int) -> None:
        """Make these a gap, or a part of the gaps beside them."""
        place = bisect(self._gaps, (begin, begin))
        if place < len(self._gaps) and self._gaps[place][0] == end:
            end = self._gaps.pop(place)[1]
        if place and self._gaps[place - 1][1] == begin:
            place -= 1
            begin = self._gaps.pop(place)[0]
        self._gaps.insert(place, (begin, end))


def _as_stored(like: KVCache, cache_dtype: CacheDtype | None) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values of each layer, as pages hold them: for their sizes."""
    keys, values = like.write_in_place(like.reserve([0] * like.batch_size, 0))
    if cache_dtype is None:
        return keys, values
    return list(map(quantized, keys)), list(map(quantized, values))


def position_bytes(like: KVCache, cache_dtype: CacheDtype | None = None) -> int:
    """Bytes of a position in pages like a cache, all layers."""
    keys, values = _as_stored(like, cache_dtype)
    return sum(each[0, :, 0].nbytes for each in (*keys, *values))


def _address_space(like: Sequence[Tensor], count: int) -> tuple[mmap.mmap, int]:
    """Room for ``count`` pages of tensors like these, (any, K, any, hd), or for fewer.

    If there is not as much, it is half of what there is: the rest of the process needs some, too. A process
    may have a limit (``ulimit -v``), or a system that promises no more than it has. Others take memory for
    what is touched alone.

    Returns:
        The room, and for how many pages it is.
    """
    page = sum(PAGE * each[0, :, 0].nbytes for each in like)
    flags = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    asked = count
    while True:
        try:
            made = mmap.mmap(-1, count * page, **flags)
        except OSError as error:
            if count == 1:
                raise MemoryError(str(error)) from None
            count //= 2
            continue
        if count == asked:
            return made, count
        made.close()
        asked = count = max(1, count // 2)


def _memory(like: Sequence[Tensor], count: int, space: mmap.mmap | None = None) -> list[Tensor]:
    """(count, K, PAGE, hd) each, a head's pages behind each other; ``like`` are (any, K, any, hd)."""
    shapes = [(each.shape[1], count, PAGE, each.shape[3]) for each in like]

    def make() -> list[Tensor]:
        if space is None:
            made = [
                torch.zeros(shape, dtype=each.dtype, device=each.device)
                for each, shape in zip(like, shapes, strict=True)
            ]
        else:
            raw = torch.frombuffer(space, dtype=like[0].dtype)
            pieces = torch.split(raw, [prod(shape) for shape in shapes])
            made = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return [each.transpose(0, 1) for each in made]

    return ordinary(make)
