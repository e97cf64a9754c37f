"""The line where messages are typed, by signals that come while it opens and closes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input

from lolama_cli.chat.editor import Editor
from lolama_cli.errors import Terminated

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path))
    with create_pipe_input() as keys, create_app_session(input=keys):
        yield keys


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal whose handler outside the editor must not be called while that is open."""

    def outside(number: int, frame: FrameType | None) -> None:
        pytest.fail("a handler that raises was called while the event loop was at work")

    before = signal.signal(request.param, outside)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.parametrize(
    ("owner", "function"),
    [
        (asyncio.events, "new_event_loop"),
        (asyncio.BaseEventLoop, "create_future"),
        (asyncio.BaseEventLoop, "shutdown_asyncgens"),
    ],
)
def test_a_signal_while_the_editor_opens_or_closes_ends_it_in_good_order(
    keys: PipeInput,
    number: signal.Signals,
    owner: Any,
    function: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    editor = Editor(lambda _: ())
    keys.send_text("hello\r" if function == "shutdown_asyncgens" else "")
    _interrupt(monkeypatch, number, owner, function)
    with pytest.raises(RAISED[number]):
        editor.read()
    keys.send_text("again\r")
    assert editor.read() == "again"


def test_a_signal_that_whoever_started_the_program_has_ignored_stays_so(
    keys: PipeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        editor = Editor(lambda _: ())
        keys.send_text("hello\r")
        _interrupt(monkeypatch, signal.SIGINT, asyncio.events, "new_event_loop")
        assert editor.read() == "hello"
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, owner: Any, function: str
) -> None:
    """Have the signal come when this function is called for the first time."""
    interrupted: Callable[..., object] = getattr(owner, function)

    def interrupt(*arguments: object) -> object:
        monkeypatch.undo()
        signal.raise_signal(number)
        return interrupted(*arguments)

    monkeypatch.setattr(owner, function, interrupt)
