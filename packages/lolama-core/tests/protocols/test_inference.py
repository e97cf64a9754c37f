"""Torch's inference mode and autocast are as before, wherever Ctrl-C comes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest
import torch
from torch.amp import autocast_mode
from torch.autograd import grad_mode

from lolama_core.protocols import inference
from lolama_core.protocols.inference import ordinary, run_inference
from lolama_core.testing.ctrl_c import CtrlC

CPU = torch.device("cpu")
SOURCES = [module.__file__ or "" for module in (inference, grad_mode, autocast_mode)] + [__file__]


def state() -> tuple[bool, bool, bool]:
    return (
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
    )


def inferring() -> tuple[bool, bool, bool]:
    return run_inference(CPU, state)


def in_turn() -> tuple[bool, bool, bool]:
    """Within inference mode, outside of it within that, and again behind that."""

    def work() -> tuple[bool, bool, bool]:
        assert ordinary(state)[0] is False
        return state()

    return run_inference(CPU, work)


@pytest.fixture(params=[False, True])
def autocast(request: pytest.FixtureRequest) -> Iterator[bool]:
    with ExitStack() as stack:
        if request.param:
            context: AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16)
            stack.enter_context(context)
        yield request.param


@pytest.mark.parametrize("work", [inferring, in_turn])
def test_models_run_in_inference_mode_without_autocast(
    work: Callable[[], tuple[bool, bool, bool]], autocast: bool
) -> None:
    before = state()
    assert before == (False, autocast, True)
    assert work() == (True, False, False)
    assert state() == before
    with torch.inference_mode():
        assert work() == (True, False, False)
        assert ordinary(state) == (False, autocast, True)
        assert state() == (True, autocast, False)


def test_what_fails_leaves_the_mode_as_it_was() -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        run_inference(CPU, partial(ordinary, fail))
    assert state() == (False, False, True)


@pytest.mark.parametrize("work", [inferring, in_turn])
def test_row_331_ctrl_c_anywhere_leaves_the_mode_as_it_was(
    work: Callable[[], tuple[bool, bool, bool]], autocast: bool
) -> None:
    """Also once the error that was kept is gone, which may be within another block."""
    before = state()
    counted = CtrlC[object](*SOURCES)
    counted.during(work)
    for place in range(1, counted.instructions + 1):
        ctrl_c = CtrlC[object](*SOURCES, place=place)
        kept = None
        try:
            ctrl_c.during(work)
        except KeyboardInterrupt as error:
            kept = error
        assert kept is not None
        assert state() == before, ctrl_c.where

        def drop() -> None:
            nonlocal kept
            kept = None
            gc.collect(1)  # it is young

        run_inference(CPU, drop)
        assert state() == before, ctrl_c.where
