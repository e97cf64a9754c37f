"""The places of a cache that one forward pass writes to, known on the host or only on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from lolama_core.protocols import CacheSlots, KVCache
from lolama_core.protocols.types import Spans


@dataclass(frozen=True)
class Slots:
    """The places one forward pass writes to; see `lolama_core.protocols.CacheSlots`."""

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    width: int
    device: torch.device
    spans: Spans = ()

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """Valid length of each row while this pass attends."""
        return tuple(start + count for start, count in zip(self.starts, self.counts, strict=True))

    @cached_property
    def longest(self) -> int:
        """The largest of `totals`."""
        return max(self.totals)

    @cached_property
    def positions(self) -> Tensor:
        """(B, T) int64: absolute positions. Those of padding run on past the row's total."""
        first = self.starts[0]
        if self.starts.count(first) == len(self.starts):
            same = torch.arange(first, first + self.width, device=self.device)
            return same.expand(len(self.starts), -1)
        starts = torch.tensor(self.starts, device=self.device)
        return starts[:, None] + torch.arange(self.width, device=self.device)

    @cached_property
    def uniform(self) -> bool:
        """Every row writes the whole width at the same place."""
        return len(set(self.starts)) == 1 and min(self.counts) == self.width

    @cached_property
    def scatter(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, input column and cache position of every real (unpadded) position, each (sum(counts),)."""
        rows = enumerate(zip(self.starts, self.counts, strict=True))
        real = [(row, i, start + i) for row, (start, count) in rows for i in range(count)]
        as_index = torch.tensor(real, device=self.device).view(-1, 3).T.contiguous()
        return as_index[0], as_index[1], as_index[2]


@dataclass(frozen=True)
class FixedSlots:
    """One new position in each row, at places that a tensor holds when the pass runs.

    Nothing about it is known on the host, so a recorded pass can be replayed for the next step. It attends
    over the whole capacity, with a mask. See `runtime.recorded_step`.

    Attributes:
        positions: (B, 1) int64: the places.
        capacity: Positions that a row has room for.
        dtype: That of keys and values.
    """

    positions: Tensor
    capacity: int
    dtype: torch.dtype
    spans: Spans = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """One position a row."""
        return (1,) * len(self.positions)

    @property
    def starts(self) -> tuple[int, ...]:
        """The least that any row may hold."""
        return (0,) * len(self.positions)

    @property
    def totals(self) -> tuple[int, ...]:
        """The most that any row may hold, and so the width of keys and values."""
        return (self.capacity,) * len(self.positions)

    def mask(self, window: int | None) -> Tensor:
        """(B, 1, 1, capacity): what is added to scores, 0 where a row's new position sees, else -inf."""
        keys = torch.arange(self.capacity, device=self.positions.device)
        seen = keys <= self.positions
        if window is not None:
            seen &= keys > self.positions - window
        scores = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return scores.masked_fill_(~seen, float("-inf"))[:, None, None]


def reserve(
    embeds: Tensor, cache: KVCache | None, lengths: Sequence[int] | None, spans: Spans = ()
) -> CacheSlots:
    """The places of (B, T, D) new positions, of which ``lengths`` are real; None if all are."""
    batch, width, _ = embeds.shape
    counts = tuple(lengths) if lengths is not None else (width,) * batch
    if cache is None:
        return Slots((0,) * batch, counts, width, embeds.device, spans)
    slots = cache.reserve(counts, width)
    return replace(cast(Slots, slots), spans=spans) if spans else slots


def last_positions(hidden: Tensor, slots: CacheSlots) -> Tensor:
    """(B, T, D) → the last real position of each row, (B, D)."""
    columns = [count - 1 for count in slots.counts]
    return hidden[torch.arange(len(columns), device=hidden.device), columns]
