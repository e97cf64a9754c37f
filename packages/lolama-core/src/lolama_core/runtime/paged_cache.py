"""Rows whose keys and values are in pages, as a model sees them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lolama_core.model.cache_slots import FixedSlots, Slots
from lolama_core.protocols import CacheSlots
from lolama_core.runtime.int8_cache import dequantized, quantized
from lolama_core.runtime.pages import PAGE, NoPages, Pages, pages_for


@dataclass(eq=False)
class Row:
    """The positions that a row holds, and the pages that they are in.

    Attributes:
        thread: Who made it, and runs it.
    """

    pages: list[int] = field(default_factory=list)
    length: int = 0
    thread: int = field(default_factory=threading.get_ident)


class PagedCache:
    """Rows of one `Pages`, as a model sees a cache of them.

    Args:
        pages: Their memory.
        rows: The rows. Several caches may see a row, one after another.
    """

    def __init__(self, pages: Pages, rows: Sequence[Row]) -> None:
        self._memory, self._rows = pages, rows
        self._table: Tensor | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Valid positions of each row."""
        return tuple(row.length for row in self._rows)

    @property
    def dtype(self) -> torch.dtype:
        """What keys and values are stored in."""
        return self._memory.keys[0].dtype

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self._memory.keys[0].device

    @property
    def pages(self) -> Tensor:
        """(B, N) int64: the pages of each row. Zeros follow where a row has fewer than another."""
        if self._table is None:
            most = max(len(row.pages) for row in self._rows)
            listed = [row.pages + [0] * (most - len(row.pages)) for row in self._rows]
            self._table = torch.tensor(listed, device=self.device)
        return self._table

    def reserve(self, counts: Sequence[int], width: int) -> Slots | FixedSlots:
        """Places for ``counts[b]`` ≤ ``width`` new positions in each row, with the pages that these need.

        Raises:
            NoPages: if there are not as many. No row has any of them then.
        """
        starts = self.lengths
        totals = [start + count for start, count in zip(starts, counts, strict=True)]
        needed = [
            max(0, pages_for(total) - len(row.pages))
            for total, row in zip(totals, self._rows, strict=True)
        ]
        if sum(needed) > self._memory.left:
            raise NoPages(f"{sum(needed)} pages are needed, and {self._memory.left} are left")
        for row, count in zip(self._rows, needed, strict=True):
            if count:
                row.pages += self._memory.take(count, row.pages[-1] if row.pages else None)
                self._table = None
        return Slots(starts, tuple(counts), width, self.device)

    def update(
        self, layer: int, keys: Tensor, values: Tensor, slots: CacheSlots
    ) -> tuple[Tensor, Tensor]:
        """Write (B, K, T, hd) at ``slots``; return all valid keys and values (B, K, max(totals), hd)."""
        return (
            self._updated(self._memory.keys[layer], keys, slots),
            self._updated(self._memory.values[layer], values, slots),
        )

    def _updated(self, stored: Tensor, new: Tensor, slots: CacheSlots) -> Tensor:
        """`_written`, of int8 as well: what is seen of a position is what is stored, of new ones, too."""
        if self.dtype != torch.int8:
            return self._written(stored, new, slots)
        return dequantized(self._written(stored, quantized(new), slots), self._memory.dtype)

    def _written(self, stored: Tensor, new: Tensor, slots: CacheSlots) -> Tensor:
        """Write (B, K, T, hd) into (pages, K, PAGE, hd); return all valid ones (B, K, max(totals), hd)."""
        assert isinstance(slots, Slots)
        count, longest = pages_for(slots.longest), slots.longest
        pages = self._rows[0].pages[:count]
        if len(self._rows) == 1 and pages == [*range(pages[0], pages[0] + count)]:
            # A row in one piece is seen where it is: (count, K, PAGE, hd) → (1, K, max(totals), hd)
            piece = stored[pages[0] : pages[0] + count].transpose(0, 1).flatten(1, 2)[None]
            piece[:, :, slots.starts[0] : longest] = new[:, :, : slots.counts[0]]
            return piece[:, :, :longest]
        row, column, place = slots.scatter
        stored[self.pages[row, place // PAGE], :, place % PAGE] = new[row, :, column].to(
            stored.dtype
        )
        held = stored[self.pages[:, :count]].transpose(1, 2).flatten(2, 3)
        # A NaN behind the end of a row would pass through any mask.
        for i, total in enumerate(slots.totals):
            held[i, :, total:] = 0
        return held[:, :, :longest]

    def write_in_place(self, slots: CacheSlots) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of each layer, for a kernel that writes at ``slots``."""
        return self._memory.keys, self._memory.values

    def advance(self, counts: Sequence[int]) -> None:
        """Make ``counts[b]`` positions just written valid."""
        for row, count in zip(self._rows, counts, strict=True):
            assert count >= 0 and row.length + count <= len(row.pages) * PAGE
            row.length += count


class FixedPagedCache(PagedCache):
    """Rows of which tensors say where they are, when a step runs: what a recorded step needs.

    Each has one new position. Bounds cannot be checked there: whoever fills the tensors does.

    Args:
        memory: The memory of the rows.
        table: (B, N) int64: the pages of each row.
        positions: (B, 1) int64: where the new position of each row goes.
    """

    def __init__(self, memory: Pages, table: Tensor, positions: Tensor) -> None:
        super().__init__(memory, ())
        self._table, self._positions = table, positions

    @property
    def lengths(self) -> tuple[int, ...]:
        """The least that any row may hold."""
        return (0,) * len(self._positions)

    def reserve(self, counts: Sequence[int], width: int) -> FixedSlots:
        """One place in each row."""
        assert width == 1 and min(counts) == 1
        return FixedSlots(self._positions, self.pages.shape[1] * PAGE, self._memory.dtype)

    def _written(self, stored: Tensor, new: Tensor, slots: CacheSlots) -> Tensor:
        """Write (B, K, 1, hd) into (pages, K, PAGE, hd); return all of the pages (B, K, N · PAGE, hd)."""
        [place] = self._positions.unbind(1)
        page = self.pages.gather(1, place[:, None] // PAGE)[:, 0]
        stored[page, :, place % PAGE] = new[:, :, 0].to(stored.dtype)
        held = stored[self.pages].transpose(1, 2).flatten(2, 3)
        # (B, N · PAGE)
        unwritten = torch.arange(held.shape[2], device=held.device) > self._positions
        return held.masked_fill_(unwritten[:, None, :, None], 0)
