"""The key/value cache as a model sees it: four members, which whoever runs a model alone needs, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lolama_core.protocols.types import Spans

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
    def spans(self) -> Spans:
        """Runs of new positions that see each other in both directions, per row; () if there are none."""
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
    def lengths(self) -> tuple[int, ...]:
        """Valid positions per row, on the host: bounds are checked without asking the device."""
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
