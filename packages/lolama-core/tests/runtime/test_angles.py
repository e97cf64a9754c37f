"""The angles of a row that decodes alone are computed for several steps at once, and are the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lolama_core import Llama, LlamaConfig, RopeScaling
from lolama_core.model.cache_slots import Slots
from lolama_core.model.layer_kinds import Angles
from lolama_core.protocols import CacheSlots
from lolama_core.runtime.angles import AnglesAhead

CPU = torch.device("cpu")
SCALINGS = [
    None,
    RopeScaling(type="linear", factor=3.0, original_max_seq_len=64),
    RopeScaling(type="llama3", factor=8.0, original_max_seq_len=64),
    RopeScaling(type="yarn", factor=4.0, original_max_seq_len=64),
]
DYNAMIC = RopeScaling(type="dynamic", factor=4.0, original_max_seq_len=64)


def model(head_dim: int = 16, scaling: RopeScaling | None = None) -> Llama:
    return Llama(
        LlamaConfig(
            vocab_size=8,
            d_model=2 * head_dim,
            num_layers=1,
            num_heads=2,
            num_kv_heads=2,
            hidden_dim=8,
            max_seq_len=512,
            rope_scaling=scaling,
        )
    )


def one(place: int) -> Slots:
    return Slots((place,), (1,), 1, CPU)


def counted(text: Llama) -> list[CacheSlots]:
    """The slots of which ``text`` computes the angles from now on."""
    asked: list[CacheSlots] = []
    compute: Callable[[CacheSlots], Angles] = text.angles

    def angles(slots: CacheSlots) -> Angles:
        asked.append(slots)
        return compute(slots)

    text.angles = angles  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("head_dim", [2, 6, 16, 48, 64, 80, 128])
def test_they_are_the_same_bits(head_dim: int, scaling: RopeScaling | None) -> None:
    text = model(head_dim, scaling)
    ahead = AnglesAhead(text)
    for place in (*range(100), 7, 480, 511, 3):
        [kept_angles], [angles] = ahead.of(text, one(place)), text.angles(one(place))
        for kept, computed in zip(kept_angles, angles, strict=True):
            assert torch.equal(kept.view(torch.int32), computed.view(torch.int32))


def test_thirty_two_steps_are_computed_at_once() -> None:
    text = model()
    ahead, asked = AnglesAhead(text), counted(text)
    for place in range(5, 70):
        ahead.of(text, one(place))
    assert [slots.starts for slots in asked] == [(5,), (37,), (69,)]


def test_other_passes_are_asked_for_as_they_are() -> None:
    text = model()
    ahead, asked = AnglesAhead(text), counted(text)
    passes = [Slots((0,), (4,), 4, CPU), Slots((3, 9), (1, 1), 1, CPU)]
    for slots in passes:
        ahead.of(text, slots)
    assert asked == passes


def test_angles_that_depend_on_more_are_computed_at_each_step() -> None:
    hooked = model()
    hooked.rope.register_forward_hook(lambda module, inputs, output: output)
    for text in (hooked, model(scaling=DYNAMIC)):
        ahead, asked = AnglesAhead(text), counted(text)
        for place in range(4):
            ahead.of(text, one(place))
        assert asked == [one(place) for place in range(4)]
