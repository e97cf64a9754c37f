"""The angles of positions in a pass; a row that decodes alone has those of its next steps at once."""

from __future__ import annotations

from lolama_core.model.cache_slots import Slots
from lolama_core.model.layer_kinds import Angles
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
        self._may_keep = text is not None and all(
            map(is_plain_rope, (text.rope, *text.other_ropes))
        )
        self._kept: tuple[int, Angles] | None = None

    def of(self, text: Llama, slots: CacheSlots) -> Angles:
        """cos and sin of the new positions, (B or 1, 1, T, head_dim) each, for each kind of layer."""
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
        place = start - kept[0]
        return tuple((cos.narrow(2, place, 1), sin.narrow(2, place, 1)) for cos, sin in kept[1])
