"""What the queries of a pass see, and what else all layers of it share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.model.cache_slots import FixedSlots
from lolama_core.model.linear import inner_dtype
from lolama_core.protocols import CacheSlots
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.types import Spans


@dataclass(frozen=True)
class PassPlan:
    """What all layers of one kind share in a pass.

    Attributes:
        cos, sin: (B, 1, T, head_dim), the angles of the new positions.
        slots: where the new keys and values go; None without a cache.
        first_key: keys before it are out of every query's sight (sliding window).
        mask: (B, 1, T, L - first_key), True where a query sees a key, or what is added to its scores in the
            dtype of the keys; None if ``causal`` says it all.
        causal: query t sees keys 0 to t: every row starts from nothing. A single query sees all keys.
        dtype: The dtype of activations inside the blocks; the stream between them keeps its own.
        positions: (B, T) int64, those of the new positions.
        others: The plans of the other kinds of layers, where layers are not all alike.
    """

    cos: Tensor
    sin: Tensor
    slots: CacheSlots | None
    first_key: int
    mask: Tensor | None
    causal: bool
    dtype: torch.dtype
    positions: Tensor
    others: tuple[PassPlan, ...] = ()

    def of_kind(self, kind: int) -> PassPlan:
        """The plan of the layers of one kind; see `layer_kinds`."""
        return self.others[kind - 1] if kind else self


def plan_pass(
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    slots: CacheSlots,
    cache: KVCacheProtocol | None,
    window: int | None,
    layers: Iterable[nn.Module],
) -> PassPlan:
    """Everything that is decided once a pass: the cheapest mask that is right, above all.

    An explicit mask makes a prefill 1.7 times slower, so the common cases do without.

    | pass | first key | mask | causal |
    |---|---|---|---|
    | prompt, every row from nothing | 0 | none | yes |
    | prompt longer than the window, or with spans | 0 | (B, 1, T, L) | no |
    | later chunk, or rows that begin at different places | 0 | (B, 1, T, L) | no |
    | decoding, rows of equal length | 0, or the first in the window | none | no |
    | decoding, rows of different lengths | 0 | (B, 1, 1, L) | no |
    | recorded decoding: lengths are on the device | 0 | (B, 1, 1, capacity), added | no |

    Args:
        x: (B, T, D) new positions, padding included.
        angles: cos and sin of the new positions.
        slots: Places of the new positions.
        cache: What holds the keys; None if there are none but the new ones.
        window: A query sees this many positions, its own included; None for all.
        layers: The blocks, whose weights decide the dtype inside them.
    """
    (cos, sin), width, dtype = angles, x.shape[1], inner_dtype(x, layers)
    if isinstance(slots, FixedSlots):
        return PassPlan(cos, sin, slots, 0, slots.mask(window), False, dtype, slots.positions)
    places = slots.starts, slots.totals, width, window, cos.device
    first_key, mask, causal = plan_mask(*places, slots.spans)
    if cache is None and mask is not None:
        mask = F.pad(mask, (0, width - mask.shape[-1]))  # keys are as wide as the input
    written = slots if cache is not None else None
    return PassPlan(cos, sin, written, first_key, mask, causal, dtype, slots.positions)


def plan_mask(
    starts: tuple[int, ...],
    totals: tuple[int, ...],
    width: int,
    window: int | None,
    device: torch.device,
    spans: Spans = (),
) -> tuple[int, Tensor | None, bool]:
    """``first_key``, ``mask`` and ``causal`` of `PassPlan`, from the lengths of rows before and after."""
    longest = max(totals)
    window_cuts = window is not None and longest > window
    if max(starts) == 0 and not window_cuts and not spans:
        return 0, None, True
    if width == 1 and min(totals) == longest:
        first_key = longest - window if window is not None and window_cuts else 0
        return first_key, None, False
    start = torch.tensor(starts, device=device)
    queries = start[:, None, None] + torch.arange(width, device=device)[None, :, None]  # (B, T, 1)
    keys = torch.arange(longest, device=device)  # (L,)
    mask = keys <= queries
    _show_spans(mask, starts, spans)
    if window is not None:
        mask &= keys > queries - window
        # A padding query may lie so far out that its window holds no key at all, and softmax over nothing
        # is NaN. Its result is thrown away; let it see the first key.
        mask[..., 0] |= ~mask.any(-1)
    return 0, mask[:, None], False


def _show_spans(mask: Tensor, starts: tuple[int, ...], spans: Spans) -> None:
    """Let queries of (B, T, L) see all keys of their spans. A window hides those that are far behind."""
    for own, before, seen in zip(spans, starts, mask, strict=False):
        for first, stop in own:
            seen[first:stop, before + first : before + stop] = True
