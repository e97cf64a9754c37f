"""Paths that the program changes, with something there that is no file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import READY, Terminal
from warm_program import run


def _socket(path: Path) -> None:
    # The address of a socket holds about 100 characters: a relative path is short enough
    # wherever the tests run.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "directory": os.mkdir,
    "link": _link_to_pipe,
}


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something that is not a regular file, and is as it was when the test has ended."""
    place = tmp_path / "x"
    KINDS[request.param](place)
    return place


def unchanged(path: Path, before: os.stat_result) -> bool:
    now = path.stat()
    return (now.st_mode, now.st_ino) == (before.st_mode, before.st_ino)


@pytest.mark.parametrize(
    "arguments", [("set", "model", "demo"), ("unset", "model"), ("show",), ("get", "model")]
)
def test_row_118_the_file_of_defaults(path: Path, arguments: tuple[str, ...]) -> None:
    before = path.stat()
    outcome = run("config", *arguments, env={"LOLAMA_CONFIG": str(path)})
    outcome.refused(2, f"error: {path}: is not a regular file; correct it")
    assert unchanged(path, before)


def test_row_118_the_file_of_aliases(path: Path) -> None:
    home = path.parent / "lolama"
    home.mkdir()
    path.rename(home / "aliases.toml")
    if path.with_name("pipe").exists():
        path.with_name("pipe").rename(home / "pipe")
    outcome = run("generate", "-m", "mine", "z", env={"XDG_CONFIG_HOME": str(path.parent)})
    outcome.refused(2, "aliases.toml", "not a regular file")


@pytest.mark.parametrize("force", ["", "--force "])
def test_row_118_where_a_conversation_is_saved(path: Path, force: str) -> None:
    before = path.stat()
    outcome = run("chat", "-m", "demo", stdin=f"/save {force}{path}\n".encode())
    outcome.refused(2, str(path), "not a regular file")
    assert unchanged(path, before)


def test_row_118_where_a_conversation_is_loaded_from(path: Path) -> None:
    assert run("chat", "-m", "demo", "--load", path).code in (2, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-m", "demo", "--batch", "-", "-o"),
        ("convert", "demo"),
        ("quantize", "-m", "demo", "-o"),
    ],
)
def test_row_118_where_answers_and_models_go(path: Path, arguments: tuple[str, ...]) -> None:
    before = path.stat()
    outcome = run(*arguments, path, stdin=b'{"prompt": "z"}\n')
    outcome.refused(2, str(path))
    assert unchanged(path, before)


def test_row_118_the_history_of_a_chat(path: Path) -> None:
    home = path.parent / "home"
    (home / "chat").mkdir(parents=True)
    history = home / "chat" / "history"
    path.rename(history)
    if path.with_name("pipe").exists():
        path.with_name("pipe").rename(history.with_name("pipe"))
    before = history.stat()
    terminal = Terminal("chat", "-m", "demo", env={"LOLAMA_HOME": str(home)})
    told = " ".join(terminal.wait_for(READY).split())
    assert "is not remembered over sessions" in told
    assert "not a regular file" in told
    terminal.say("hello")
    terminal.type("/exit\r")
    assert terminal.end() == 0
    assert unchanged(history, before)
