"""Keys in the editor: Tab, Ctrl-C in a search, and messages of several lines."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lolama_cli.chat.commands import _words
from lolama_cli.chat.completion import SlashCompleter
from lolama_cli.chat.editor import Editor
from lolama_cli.chat.lines import LineReader
from lolama_cli.chat.quotes import unquoted

WORDS = {"": ["model", "image", "save", "set"], "model": ["demo"], "set": ["stop", "seed"]}


def completions(name: str) -> Sequence[str] | None:
    return WORDS.get(name)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with ``my pictures/one red.png`` and ``note.txt``."""
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    (tmp_path / "work" / "my pictures").mkdir(parents=True)
    (tmp_path / "work" / "my pictures" / "one red.png").touch()
    (tmp_path / "work" / "note.txt").touch()
    monkeypatch.chdir(tmp_path / "work")


def typed(*presses: str) -> str:
    """What the editor hands on after these keys, each pressed once the one before was shown; then Enter.

    Enter is pressed until it sends: where a candidate was chosen, the first one takes it.
    """
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        editor = Editor(completions)
        following = chain(presses, repeat("\r", 5))
        editor._session.app.after_render += lambda _: keys.send_text(next(following, ""))
        return editor.read()


@pytest.mark.parametrize("tabs", [1, 2, 3])
def test_tab_does_not_take_the_only_candidate_back(tabs: int) -> None:
    assert typed("/mo", *["\t"] * tabs) == "/model"


def test_tab_goes_on_to_the_next_of_several() -> None:
    # It depends on whether the menu had opened before the first Tab.
    assert typed("/set s", "\t", "\t") in ("/set stop", "/set seed")


def test_a_folder_completes_with_a_slash_and_the_next_tab_goes_into_it() -> None:
    assert typed("/image my", "\t") == "/image my\\ pictures/"
    assert typed("/image my", "\t", "\t") == "/image my\\ pictures/one\\ red.png"
    assert typed("/image no", "\t", "\t") == "/image note.txt"


def candidates(line: str) -> list[str]:
    """The lines that Tab may lead to."""
    found = SlashCompleter(completions).get_completions(Document(line), CompleteEvent())
    return [line[: len(line) + each.start_position] + each.text for each in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/image my\\ pi", "/image my\\ pictures/"),
        ("/image 'my pi", "/image 'my pictures/"),
        ('/image "my pictures/o', '/image "my pictures/one red.png'),
        ("/image note.txt my\\ pictures/", "/image note.txt my\\ pictures/one\\ red.png"),
        ("/image 'my pictures/one red.png' no", "/image 'my pictures/one red.png' note.txt"),
        ("/save --force no", "/save --force note.txt"),
        ("/image nowhere/", None),
        ("say /image no", None),
    ],
)
def test_paths_with_spaces(line: str, expected: str | None) -> None:
    assert candidates(line) == ([] if expected is None else [expected])


@given(st.text("ab '\"\\$~é", min_size=1, max_size=6).filter(lambda name: name.strip(".")))
def test_what_a_path_completes_to_is_read_as_that_path(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="completes-") as folder:
        (Path(folder) / name).touch()
        [line] = candidates(f"/image {folder}/")
        assert _words("/image", line.removeprefix("/image ")) == [f"{folder}/{name}"]


def test_ctrl_c_leaves_a_search_and_what_was_typed_stays() -> None:
    assert typed("first") == "first"
    assert typed("second ", "\x12", "fir", "\x03", "line") == "second line"
    # In the editor itself it empties the line, as ever.
    assert typed("second ", "\x03", "line") == "line"


def test_enter_takes_what_a_search_found() -> None:
    assert typed("first") == "first"
    assert typed("\x12", "fir", "\r") == "first"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('"""one\rtwo"""', "one\ntwo"),
        ('"""\rone\r\rtwo\r"""', "one\n\ntwo"),
        ('"""one"""', "one"),
        ('"" one', '"" one'),
        ('one """ two', 'one """ two'),
        ('"""a""" or """b"""', '"""a""" or """b"""'),
        ('"""a""" b', '"""a""" b'),
    ],
)
def test_row_177_three_quotes_begin_and_end_a_message_of_several_lines(
    monkeypatch: pytest.MonkeyPatch, message: str, said: str
) -> None:
    assert typed(message) == said
    typed_lines = io.BytesIO(message.replace("\r", "\n").encode() + b"\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed_lines))
    assert LineReader(prompt=True).read() == said
    typed_lines = io.BytesIO(message.replace("\r", "\n").encode() + b"\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed_lines))
    assert LineReader(prompt=False).read() == message.split("\r")[0]


def test_row_177_a_line_that_ends_in_a_backslash_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\\\ntwo\\\n\\\nthree\n")))
    assert LineReader(prompt=True).read() == "one\ntwo\n\nthree"
    assert unquoted('"""') == '"""'
