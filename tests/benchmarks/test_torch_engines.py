"""The peers that are torch programs must run the same model, or their speeds mean nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from benchmarks.engine import ROOM, prompt
from benchmarks.make_model import write_hugging_face
from benchmarks.shapes import SHAPES
from benchmarks.torch_engines import (
    EagerEngine,
    LolamaEngine,
    TorchEngine,
    TransformersEngine,
)

KINDS: list[type[TorchEngine]] = [LolamaEngine, TransformersEngine, EagerEngine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TorchEngine]]:
    folder = tmp_path_factory.mktemp("model") / "stories260k"
    write_hugging_face(folder, SHAPES["stories260k"], "f32")
    threads = torch.get_num_threads()
    yield [kind(str(folder), 1) for kind in KINDS]
    torch.set_num_threads(threads)


def test_every_peer_computes_the_same(engines: list[TorchEngine]) -> None:
    found = []
    for engine in engines:
        engine.make_cache(1, 20)
        with torch.inference_mode():
            first = engine.logits(torch.tensor([prompt(20)]))
            second = engine.logits(torch.tensor([[7]]))
        found.append(torch.stack([first, second]))
        engine.forget()
    for logits in found[1:]:
        torch.testing.assert_close(logits, found[0], rtol=1e-4, atol=1e-4)


def test_every_peer_attends_over_keys_it_was_handed(engines: list[TorchEngine]) -> None:
    found = []
    for engine in engines:
        engine.fill(3, 40)
        with torch.inference_mode():
            found.append(engine.logits(torch.tensor([[7], [8], [9]])))
        engine.forget()
    assert not torch.allclose(found[0][0], found[0][1])
    for logits in found[1:]:
        torch.testing.assert_close(logits, found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_steps_are_timed_one_by_one(engines: list[TorchEngine], kind: int) -> None:
    times = engines[kind].step_times(2, 30, 5)
    assert len(times) == 5 and min(times) > 0
    engines[kind].start(12)
    assert engines[kind].best.shape == (1, 1)


def test_every_shape_has_room_for_its_steps() -> None:
    from benchmarks.shapes import STEPS

    assert STEPS.keys() == SHAPES.keys() and max(STEPS.values()) < ROOM
