"""The angles of positions in a pass; a row that decodes alone has those of its next steps at once."""

from __future__ import annotations

from torch import Tensor

from lolama_core.model.cache_slots import Slots
from lolama_core.model.llama import Llama
from lolama_core.protocols import CacheSlots
from lolama_core.runtime.known import is_plain_rope

_AHEAD = 32
"""Positions that are computed at once. Ten operators take as long for them as for one."""


class AnglesAhead:
    """The angles of a pass, the same bits as `Llama.angles`, in fewer operators for a row that decodes alone.

    Args:
        text: Whose angles they are, as it is now. If its angles depend on more than a position, it is asked
            at each pass.
    """

    def __init__(self, text: Llama | None) -> None:
        self._may_keep = text is not None and is_plain_rope(text.rope)
        self._kept: tuple[int, tuple[Tensor, Tensor]] | None = None

    def of(self, text: Llama, slots: CacheSlots) -> tuple[Tensor, Tensor]:
        """cos and sin of the new positions, (B or 1, 1, T, head_dim) each."""
        if (
            not self._may_keep
            or not isinstance(slots, Slots)
            or slots.width * len(slots.starts) > 1
        ):
            return text.angles(slots)
        [start] = slots.starts
        kept = self._kept
        if kept is None or not kept[0] <= start < kept[0] + _AHEAD:
            kept = start, text.angles(Slots((start,), (_AHEAD,), _AHEAD, slots.device))
            self._kept = kept
        first, (cos, sin) = kept
        return cos.narrow(2, start - first, 1), sin.narrow(2, start - first, 1)
