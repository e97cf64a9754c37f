"""What keys and values of many rows take, under a limit of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lolama_core.model.free_memory import free_memory
from lolama_core.model.kv_cache import KVCache, own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.types import PromptKey
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, Pages, pages_for
from lolama_core.runtime.prefix_tree import PrefixTree

_SHARE = 0.8
"""How much of the free memory keys and values may take, if nobody says."""


class RowMemory:
    """Where the rows of one model have their keys and values.

    That is in pages, which a row takes as it grows. Where a position changes what is held of others (dynamic
    RoPE), each row has a cache of its own, as large as it may ever need.

    Args:
        model: What makes the caches.
        rows: How many rows there are at most.
        max_bytes: What all of them may take, but at least a page; None for four fifths of the memory that is
            free, or for no limit where the system does not tell how much that is.
    """

    def __init__(self, model: CausalLM, rows: int, max_bytes: int | None) -> None:
        self._model, self._rows, self._max_bytes = model, rows, max_bytes
        self._pages: Pages | None = None
        self._tree: PrefixTree | None = None
        self._own: dict[Row, KVCache] = {}
        self._promised: dict[Row, int] = {}
        self._position_bytes = 0

    def _open(self) -> None:
        """Look at what the model's cache is like, once there is a row."""
        like = own_cache(self._model.make_cache(1, 1))
        if self._max_bytes is None:
            # 0 if the system does not tell.
            self._max_bytes = int(_SHARE * free_memory(self._model.device))
        if like.stable:
            limit = self._rows * pages_for(self._model.max_seq_len)
            if self._max_bytes:
                limit = min(limit, max(1, self._max_bytes // (PAGE * like.nbytes)))
            self._pages = Pages(like, limit)
            self._tree = PrefixTree(self._pages)
        self._position_bytes = like.nbytes

    @property
    def idle_bytes(self) -> int:
        """Bytes of pages that no row has: kept for texts that begin alike, and given up when needed."""
        return 0 if self._pages is None else self._pages.idle * self._pages.page_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages and caches that rows have. What is kept for others comes on top."""
        paged = 0 if self._pages is None else self._pages.used_bytes
        return paged + sum(cache.nbytes for cache in self._own.values())

    def begin(
        self, row: Row, keys: Sequence[PromptKey], positions: int, most: int, spare: int = 0
    ) -> bool:
        """Promise a row what it needs to begin, and give it what is known of its text.

        Args:
            row: It has nothing yet.
            keys: Those of the positions that it will run, or none if nobody knows them.
            positions: Those that it will run, and the first behind them.
            most: Positions that it may ever have.
            spare: Pages that have to be left for rows that grow.

        Returns:
            Whether there is as much. If not, nothing has changed.
        """
        if not self._position_bytes:
            self._open()
        if self._pages is not None:
            assert self._tree is not None
            # The last position is run in any case, for its logits.
            shared = self._tree.busy(keys[:-1])
            if pages_for(positions) - shared + spare > self._left(self._pages):
                return False
            self._promised[row] = pages_for(positions)
            try:
                self._tree.begin(row, keys[:-1])
            except BaseException:
                self.end(row)
                raise
            return True
        if self._max_bytes and self.used_bytes + most * self._position_bytes > self._max_bytes:
            return False
        self._own[row] = own_cache(self._model.make_cache(1, most))
        return True

    def known(self, keys: Sequence[PromptKey]) -> int:
        """How many positions of a text need not be run again. Only whole pages count."""
        return 0 if self._tree is None else self._tree.known(keys)

    def keep(self, row: Row, keys: Sequence[PromptKey]) -> None:
        """Let other rows share what this one has run, if its ``keys`` are known; see `PrefixTree.keep`."""
        if self._tree is not None and len(keys) >= row.length:
            self._tree.keep(row, keys)

    def forget(self) -> None:
        """Keep nothing that was run before: the model has changed."""
        if self._tree is not None:
            self._tree.clear()

    def end(self, row: Row) -> None:
        """Take back what a row has."""
        if self._pages is not None:
            self._pages.give_back(row.pages)
        row.pages, row.length = [], 0
        self._promised.pop(row, None)
        self._own.pop(row, None)

    def held(self, row: Row) -> int:
        """Positions that a row holds."""
        own = self._own.get(row)
        return row.length if own is None else own.lengths[0]

    def has_next(self, rows: Sequence[Row]) -> bool:
        """Whether each of these can have one more position, without what is promised to others."""
        if self._pages is None:
            return True
        # One that still has a page promised to it takes that.
        full = sum(
            row.length == len(row.pages) * PAGE and len(row.pages) >= self._promised[row]
            for row in rows
        )
        return full <= self._left(self._pages)

    def _left(self, pages: Pages) -> int:
        """Free pages that are promised to no row."""
        promised = (max(0, count - len(row.pages)) for row, count in self._promised.items())
        return pages.left - sum(promised)

    def passes(self, rows: Sequence[Row]) -> Iterator[tuple[range, PagedCache | KVCache]]:
        """The passes in which these run: the places of the rows of each, and their cache.

        All rows run in one pass, or each alone where it has a cache of its own.
        """
        if self._pages is not None:
            if rows:
                yield range(len(rows)), PagedCache(self._pages, rows)
            return
        for place, row in enumerate(rows):
            yield range(place, place + 1), self._own[row]
