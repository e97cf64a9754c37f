"""What keys and values of many rows take, under a limit of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lolama_core.model.free_memory import free_memory
from lolama_core.model.kv_cache import KVCache, own_cache
from lolama_core.protocols import CausalLM
from lolama_core.runtime.pages import PAGE, PagedCache, Pages, Row, pages_for

_SHARE = 0.8
"""How much of the free memory keys and values may take, if nobody says."""


class RowMemory:
    """Where the rows of one model have their keys and values.

    That is in pages, which a row takes as it grows. Where a position changes what is held of others (dynamic
    RoPE), each row has a cache of its own, as large as it may ever need.

    Args:
        model: What makes the caches.
        rows: How many rows there are at most.
        max_bytes: What all of them may take; None for four fifths of the memory that is free.
    """

    def __init__(self, model: CausalLM, rows: int, max_bytes: int | None) -> None:
        self._model, self._rows, self._max_bytes = model, rows, max_bytes
        self._pages: Pages | None = None
        self._own: dict[Row, KVCache] = {}
        self._promised: dict[Row, int] = {}
        self._position_bytes = 0

    def _open(self) -> None:
        """Look at what the model's cache is like, once there is a row."""
        like = own_cache(self._model.make_cache(1, 1))
        self._position_bytes = like.nbytes
        if self._max_bytes is None:
            # 0 where the system does not tell what is free.
            self._max_bytes = int(_SHARE * free_memory(self._model.device))
        if like.stable:
            limit = self._rows * pages_for(self._model.max_seq_len)
            if self._max_bytes:
                limit = min(limit, max(1, self._max_bytes // (PAGE * like.nbytes)))
            self._pages = Pages(like, limit)

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages and caches that rows have."""
        paged = 0 if self._pages is None else self._pages.used_bytes
        return paged + sum(cache.nbytes for cache in self._own.values())

    def begin(self, row: Row, positions: int, most: int, spare: int = 0) -> bool:
        """Promise a row what it needs to begin; whether that can be had.

        Args:
            row: It has nothing yet.
            positions: Those of its prompt, and the first behind it.
            most: Positions that it may ever have.
            spare: Pages that have to be left for rows that grow.
        """
        if not self._position_bytes:
            self._open()
        if self._pages is not None:
            if pages_for(positions) + spare > self._left(self._pages):
                return False
            self._promised[row] = pages_for(positions)
            return True
        if self._max_bytes and self.used_bytes + most * self._position_bytes > self._max_bytes:
            return False
        self._own[row] = own_cache(self._model.make_cache(1, most))
        return True

    def end(self, row: Row) -> None:
        """Take back what a row has."""
        if self._pages is not None:
            self._pages.give_back(row.pages)
        row.pages, row.length = [], 0
        self._promised.pop(row, None)
        self._own.pop(row, None)

    def has_next(self, rows: Sequence[Row]) -> bool:
        """Whether each of these can have one more position, without what is promised to others."""
        if self._pages is None:
            return True
        full = sum(row.length == len(row.pages) * PAGE for row in rows)
        return full <= self._left(self._pages)

    def _left(self, pages: Pages) -> int:
        """Pages that are not taken, and promised to nobody."""
        waited_for = (max(0, count - len(row.pages)) for row, count in self._promised.items())
        return pages.left - sum(waited_for)

    def passes(self, rows: Sequence[Row]) -> Iterator[tuple[range, PagedCache | KVCache]]:
        """Which of these run in one pass, by their places, and their cache: all, or each alone."""
        if self._pages is not None:
            if rows:
                yield range(len(rows)), PagedCache(self._pages, rows)
            return
        for place, row in enumerate(rows):
            yield range(place, place + 1), self._own[row]
