"""The key/value cache as a model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


class CacheSlots(Protocol):
    """The places one forward pass writes to: computed once, used by every layer."""

    @property
    def counts(self) -> tuple[int, ...]:
        """New positions per row: row b of a (B, T, ...) input holds counts[b] of them, then padding."""
        ...

    @property
    def starts(self) -> tuple[int, ...]:
        """Positions each row held before."""
        ...

    @property
    def totals(self) -> tuple[int, ...]:
        """starts + counts: the valid length of each row while this pass attends."""
        ...

    @property
    def positions(self) -> Tensor:
        """(B, T) int64: absolute position of each input position, on the cache's device."""
        ...


@runtime_checkable
class KVCache(Protocol):
    """Preallocated keys and values of every layer, with a length of its own for each row.

    A pass is ``reserve`` once, ``update`` in each layer, and ``advance`` by the *caller* of the model once
    the pass is known to be good. Until then nothing that was valid has changed, so a pass that fails or is
    abandoned leaves the cache as it was.
    """

    @property
    def batch_size(self) -> int:
        """Number of rows B."""
        ...

    @property
    def capacity(self) -> int:
        """Positions each row has room for."""
        ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Valid positions per row, on the host: bounds are checked without asking the device."""
        ...

    @property
    def stable(self) -> bool:
        """Whether what is held of a position stays right whatever follows it.

        False under dynamic RoPE, where it depends on the length of the whole row. Only a stable row may be
        read for the use of another one, and only a stable row gains from a prompt that comes in pieces.
        """
        ...

    def reserve(self, counts: Sequence[int], width: int) -> CacheSlots:
        """Places for ``counts[b]`` new positions of an input that is ``width`` positions wide.

        Raises:
            UsageError: if a row would grow past the capacity, with both numbers.
        """
        ...

    def update(
        self, layer: int, keys: Tensor, values: Tensor, slots: CacheSlots
    ) -> tuple[Tensor, Tensor]:
        """Write (B, K, T, head_dim) at ``slots``; return keys and values (B, K, max(totals), head_dim).

        The result may be a view. Positions past a row's total are finite but meaningless: mask them.
        """
        ...

    def advance(self, counts: Sequence[int]) -> None:
        """Make the positions just written valid."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all but the first ``lengths[b]`` positions of each row."""
        ...

    def rows(self, indices: Sequence[int]) -> KVCache:
        """A writable view of some rows: what is written or advanced there shows here."""
        ...

    def copy_rows(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy whole rows within the cache, lengths included."""
        ...

    def read_row(self, row: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, (K, lengths[row], head_dim) each: views, to be copied at once.

        `reserve`, `update` and `advance` put a copy into a row of any other cache of the same model.
        """
        ...

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` positions a row; what is held stays, and views see it too."""
        ...

    def reset(self) -> None:
        """Empty every row."""
        ...
