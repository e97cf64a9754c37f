"""Preallocated keys and values, with a length of its own for every row.

The rows of a batch are in pages instead: `runtime.paged_cache`. `dynamic_rope` has a cache for dynamic RoPE.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from lolama_core.model.cache_slots import Slots
from lolama_core.protocols import CacheSlots
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.inference import ordinary


class KVCache:
    """Keys and values of every layer, (B, K, capacity, head_dim) each.

    Writing is separate from advancing: a pass writes past the valid length, and only when the caller
    advances do the positions count. An abandoned pass therefore changes nothing.

    Args:
        num_layers: Layers.
        batch_size: Rows B.
        num_kv_heads: Key/value heads K.
        capacity: Positions per row.
        head_dim: Width of a head.
        dtype, device: Those of keys and values.

    Example:
        >>> cache = KVCache(num_layers=1, batch_size=2, num_kv_heads=1, capacity=8, head_dim=2)
        >>> slots = cache.reserve([3, 1], width=3)  # row 1 is two positions of padding
        >>> keys, values = cache.update(0, torch.ones(2, 1, 3, 2), torch.ones(2, 1, 3, 2), slots)
        >>> cache.advance(slots.counts)
        >>> cache.lengths
        (3, 1)
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch_size, num_kv_heads, capacity, head_dim)
        # Zeros, not empty: a masked position still takes part in softmax(...) @ v, and 0 · NaN is NaN.
        # Tensors made in inference mode can be written to only there, so these are made outside of it.
        make = partial(torch.zeros, shape, dtype=dtype, device=device)
        self._keys = ordinary(lambda: [make() for _ in range(num_layers)])
        self._values = ordinary(lambda: [make() for _ in range(num_layers)])
        self._lengths = (0,) * batch_size

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return len(self._lengths)

    @property
    def capacity(self) -> int:
        """Positions each row has room for."""
        return self._keys[0].shape[2]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Valid positions of each row."""
        return self._lengths

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self._keys[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of keys and values."""
        return self._keys[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, all rows."""
        return sum(t.nbytes for t in (*self._keys, *self._values))

    @property
    def changed_by(self) -> str | None:
        """What changes what is held of a position as its row grows: dynamic RoPE or LongRoPE; else None."""
        return None

    @cached_property
    def pages(self) -> Tensor:
        """(B, 1) int64: to a kernel a row is one page of ``capacity`` positions."""
        return torch.arange(self.batch_size, device=self.device)[:, None]

    def reserve(self, counts: Sequence[int], width: int) -> Slots:
        """Places for ``counts[b]`` ≤ ``width`` new positions in each row.

        Raises:
            UsageError: if a row would pass the capacity. A slice assignment one past the end would
                silently write nothing, so this is always checked, on the host.
        """
        starts = self.lengths
        assert len(counts) == len(starts) and all(0 <= count <= width for count in counts)
        needed = max(start + count for start, count in zip(starts, counts, strict=True))
        if needed > self.capacity:
            raise UsageError(
                "KV cache",
                f"{needed} positions do not fit its capacity of {self.capacity}",
                "make a cache with more room, or shorten the text",
            )
        return Slots(starts, tuple(counts), width, self.device)

    def update(
        self, layer: int, keys: Tensor, values: Tensor, slots: CacheSlots
    ) -> tuple[Tensor, Tensor]:
        """Write (B, K, T, hd) at ``slots``; return all valid keys and values (B, K, max(totals), hd)."""
        assert isinstance(slots, Slots)
        return (
            write_rows(self._keys[layer], keys, slots),
            write_rows(self._values[layer], values, slots),
        )

    def write_in_place(self, slots: CacheSlots) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of each layer, for a kernel that writes at ``slots``."""
        return self._keys, self._values

    def advance(self, counts: Sequence[int]) -> None:
        """Make ``counts[b]`` positions just written valid."""
        lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        assert max(lengths) <= self.capacity and min(counts) >= 0
        self._lengths = tuple(lengths)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all but the first ``lengths[b]`` positions of each row.

        Raises:
            UsageError: if a row is shorter than that already.
        """
        for row, (keep, length) in enumerate(zip(lengths, self.lengths, strict=True)):
            if not 0 <= keep <= length:
                raise UsageError("KV cache", f"row {row} holds {length} positions, not {keep}", "")
        self._lengths = tuple(lengths)

    def read_row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, (K, lengths[row], head_dim) each: views, cut to the length."""
        held, layers = self.lengths[row], zip(self._keys, self._values, strict=True)
        return [(keys[row, :, :held], values[row, :, :held]) for keys, values in layers]

    def reset(self) -> None:
        """Empty every row, and wipe it: a NaN left by a failed pass would leak through the mask."""
        for tensor in (*self._keys, *self._values):
            tensor[:, :, : max(self.lengths) + 1] = 0
        self.truncate([0] * self.batch_size)


def own_cache(cache: KVCacheProtocol) -> KVCache:
    """``cache``, which is to be kept, shared or recorded: what a `KVCache` can, and not every cache.

    Raises:
        UsageError: for a cache of another class.
    """
    if not isinstance(cache, KVCache):
        reason = f"makes {kind_of(cache)}, which generation cannot keep or share"
        raise UsageError("make_cache", reason, "let it make a lolama_core.KVCache")
    return cache


def write_rows(stored: Tensor, new: Tensor, slots: Slots) -> Tensor:
    """Write (B, K, T, hd) into (B, K, capacity, hd) and return its valid part (B, K, max(totals), hd)."""
    if slots.uniform:
        stored.narrow(2, slots.starts[0], slots.width).copy_(new)
    else:
        row, column, place = slots.scatter
        stored[row, :, place] = new[row, :, column].to(stored.dtype)
    return stored.narrow(2, 0, slots.longest)
