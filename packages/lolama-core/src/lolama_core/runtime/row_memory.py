"""Rows of one model: their passes, and what their keys and values take, under a limit of bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lolama_core.model.free_memory import free_memory
from lolama_core.model.kv_cache import KVCache, own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.types import PromptKey, Spans
from lolama_core.runtime.int8_cache import CacheDtype, check_cache_dtype
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, Pages, pages_for, position_bytes
from lolama_core.runtime.prefix_tree import PrefixTree
from lolama_core.runtime.recorded_step import RecordedSteps, can_be_recorded
from lolama_core.runtime.runner import Runner
from lolama_core.runtime.turns import Turns

_SHARE = 0.8
"""How much of the free memory keys and values may take, if nobody says."""


class RowMemory:
    """Where the rows of one model have their keys and values.

    That is in pages, which a row takes as it grows. Where a position changes what is held of others (dynamic
    RoPE), each row has a cache of its own, as large as it may ever need.

    Args:
        model: What runs the rows, as `runner_of` gives it. It is not kept alive.
        rows: How many rows of a whole context there are at most, where no bytes limit them.
        max_bytes: What all of them may take, but at least a page; None for four fifths of the memory that is
            free, or for no limit where the system does not tell how much that is.
        positions: How many a row has at most, if not as many as the context. What is small is near: its
            addresses need fewer pages of the system, which a processor looks up. Where steps are recorded,
            any text has room, since recording takes longer.
        record: Whether decoding steps are recorded: on CUDA, if nobody says; elsewhere in tests alone.
        cache_dtype: What keys and values are stored in: int8, at some loss, or None for the model's dtype.

    Raises:
        UsageError: for another ``cache_dtype``, or one under dynamic RoPE.

    Attributes:
        positions: How many a row has at most.
        is_limited: Whether somebody has said how many bytes it may take.
        turns: Whoever changes rows does it in a turn.
        on_end: Called when a row has ended.
    """

    def __init__(
        self,
        model: CausalLM,
        rows: int = 16,
        max_bytes: int | None = None,
        *,
        positions: int | None = None,
        record: bool | None = None,
        cache_dtype: CacheDtype | None = None,
    ) -> None:
        check_cache_dtype(cache_dtype, model)
        self._model, self._rows, self._max_bytes = weakref.ref(model), rows, max_bytes
        self.cache_dtype = cache_dtype
        self.is_limited = max_bytes is not None
        self._record = can_be_recorded(model) if record is None else record
        self.positions = model.max_seq_len if self._record or positions is None else positions
        self._pages: Pages | None = None
        self._tree: PrefixTree | None = None
        self._own: dict[Row, KVCache] = {}
        self._promised: dict[Row, int] = {}
        self._position_bytes = 0
        self.recorded: RecordedSteps | None = None
        # In a circle of objects the memory would stay until Python looks for circles.
        itself = weakref.ref(self)

        def recount() -> None:
            if (memory := itself()) is not None:
                memory._recount()

        self.turns = Turns(recount)
        self.on_end: Callable[[], None] = lambda: None

    @property
    def model(self) -> CausalLM | None:
        """What runs the rows; None if it is gone."""
        return self._model()

    def open(self) -> None:
        """Look at what the model's cache is like, if nobody has yet."""
        if self._position_bytes:
            return
        model = self.model
        assert model is not None, "whoever runs a model holds it"
        like = own_cache(model.make_cache(1, 1))
        if self._max_bytes is None:
            # 0 if the system does not tell.
            self._max_bytes = int(_SHARE * free_memory(model.device))
        bytes_of_one = position_bytes(like, self.cache_dtype)
        if like.changed_by is None:
            limit = self._rows * pages_for(self.positions)
            if self._max_bytes:
                limit = min(limit, max(1, self._max_bytes // (PAGE * bytes_of_one)))
            # Recorded steps take one for themselves.
            self._pages = Pages(like, limit + self._record, cache_dtype=self.cache_dtype)
            self._tree = PrefixTree(self._pages)
            self.recorded = RecordedSteps(self._pages) if self._record else None
        self._position_bytes = bytes_of_one

    @property
    def rows_run_alone(self) -> bool:
        """Whether each row has a pass of its own, from its first position to its last."""
        self.open()
        return self._pages is None

    @property
    def skips_padding(self) -> bool:
        """Whether rows with different numbers of new positions run together at no cost."""
        self.open()
        model = self.model
        return (
            self._pages is not None
            and isinstance(model, Runner)
            and model.skips_padding(self._pages.keys[0].dtype)
        )

    @property
    def idle_bytes(self) -> int:
        """Bytes of pages that no row has: kept for texts that begin alike, and given up when needed."""
        return 0 if self._pages is None else self._pages.idle * self._pages.page_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages and caches that rows have. What is kept for others comes on top."""
        paged = 0 if self._pages is None else self._pages.used_bytes
        if self._pages is not None and self.recorded is not None:
            paged -= self._pages.page_bytes  # no row has that
        return paged + sum(cache.nbytes for cache in self._own.values())

    @property
    def rows(self) -> list[Row]:
        """Those that may take memory."""
        return [*self._promised, *self._own]

    @property
    def texts(self) -> int:
        """How many texts are kept, each with all that it begins with."""
        return 0 if self._tree is None else self._tree.texts

    @property
    def kept(self) -> tuple[PrefixTree, Pages] | None:
        """The texts that are kept, and the memory that they are in; None where rows run alone."""
        self.open()
        if self._tree is None or self._pages is None:
            return None
        return self._tree, self._pages

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
        self.open()
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
        assert self.model is not None
        self._own[row] = own_cache(self.model.make_cache(1, most))
        return True

    def known(self, keys: Sequence[PromptKey]) -> int:
        """How many positions of a text need not be run again. Only whole pages count."""
        return 0 if self._tree is None else self._tree.known(keys)

    def keep(self, row: Row, keys: Sequence[PromptKey]) -> None:
        """Let other rows share what this one has run; see `PrefixTree.keep`."""
        if self._tree is not None:
            self._tree.keep(row, keys)

    def forget(self) -> None:
        """Keep nothing that was run before."""
        if self._tree is not None:
            self._tree.clear()

    def release(self) -> bool:
        """Keep nothing, and give the system back what rows have touched; False if that cannot be done now."""
        self.forget()
        return self._pages is not None and (
            self.recorded is not None or (not self.used_bytes and self._pages.release())
        )

    def reclaim(self, max_bytes: int) -> None:
        """Keep no more than ``max_bytes`` of what no row has; what was not used for longest goes first."""
        if self._pages is not None and self.idle_bytes > max_bytes:
            excess = self.idle_bytes - max_bytes
            self._pages.reclaim(-(-excess // self._pages.page_bytes))

    def end(self, row: Row) -> None:
        """Take back what a row has."""
        if self._pages is not None:
            self._pages.give_back(row.pages)
        row.pages, row.length = [], 0
        self._promised.pop(row, None)
        self._own.pop(row, None)
        self.on_end()

    def _recount(self) -> None:
        """Count anew which pages rows have, and which are kept for others."""
        if self._pages is not None and self._tree is not None:
            rows = [*self.rows, *([self.recorded.spare] if self.recorded else [])]
            self._pages.recount([page for row in rows for page in row.pages], self._tree.pages)

    def held(self, row: Row) -> int:
        """Positions that a row holds."""
        own = self._own.get(row)
        return row.length if own is None else own.lengths[0]

    def has_room(self, rows: Sequence[Row], counts: Sequence[int]) -> bool:
        """Whether rows can have ``counts`` more positions, without what is promised to others."""
        if self._pages is None:
            return True
        needed = 0
        for row, count in zip(rows, counts, strict=True):
            # One that still has a page promised to it takes that.
            held = max(len(row.pages), self._promised[row])
            needed += max(0, pages_for(row.length + count) - held)
        return needed <= self._left(self._pages)

    def cut_back(self, row: Row, count: int) -> None:
        """Take the last ``count`` positions of a row away, and pages that hold none besides."""
        assert self._pages is not None
        assert count <= row.length
        row.length -= count
        needed = pages_for(row.length)
        unused, row.pages = row.pages[needed:], row.pages[:needed]
        self._pages.give_back(unused)

    def _left(self, pages: Pages) -> int:
        """Free pages that are promised to no row."""
        promised = (max(0, count - len(row.pages)) for row, count in self._promised.items())
        return pages.left - sum(promised)

    def decode(self, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
        """The last token of each row → logits (B, V) of what follows, and one more position in each."""
        model = self.model
        assert model is not None
        if self.recorded is not None:
            return self.recorded(model, rows, tokens)
        ids = torch.tensor([[token] for token in tokens], device=model.device)
        return self.run(rows, model.embed(ids), [1] * len(rows))

    def run(
        self,
        rows: Sequence[Row],
        embeds: Tensor,
        counts: Sequence[int],
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        """A pass: logits (B, V) or (B, T, V), and ``counts[b]`` more positions in each row.

        Args:
            rows: One alone, where rows run alone.
            embeds: (B, T, D), padded behind the positions of each row.
            counts: New positions of each row.
            logits, spans: See `CausalLM.forward_embeds`.
        """
        model = self.model
        assert model is not None
        cache = self._own[rows[0]] if self._pages is None else PagedCache(self._pages, rows)
        more = {"spans": spans} if spans else {}
        result = model.forward_embeds(embeds, cache, counts, logits, **more)
        cache.advance(counts)
        return result
