"""Where lines break on a terminal, and that nothing else changes."""

from __future__ import annotations

import re
import textwrap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal
from warm_program import on_terminal, run

from lolama_cli.word_wrap import WordWrap, wrapped

STORY = "In a warm hut by the lonely mill there lived a well-known cat, who read books to mice. "
SGR = re.compile(r"\x1b\[[0-9;]*m")


def in_pieces(text: str, columns: int, cuts: list[int]) -> str:
    """`text` wrapped as it comes in pieces that end at ``cuts``."""
    wrap = WordWrap(lambda: columns)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    shown = [wrap.push(text[a:b]) for a, b in pairwise(places)]
    return "".join(shown) + wrap.finish()


@pytest.mark.parametrize("columns", [10, 17, 40, 79, 80, 120])
def test_row_173_lines_break_where_pythons_textwrap_breaks_them(columns: int) -> None:
    text = (STORY * 5).strip()
    expected = textwrap.fill(text, columns, break_on_hyphens=False)
    assert wrapped(text, columns) == expected
    assert wrapped(f"{text}\n\n{text}", columns) == f"{expected}\n\n{expected}"


TEXTS = st.text(
    st.sampled_from("ab \t\n`|-~é\u0301狗🐑") | st.characters(codec="utf-8"), max_size=60
)


@given(TEXTS, st.integers(0, 12), st.lists(st.integers(0, 100), max_size=8))
def test_row_173_what_is_shown_does_not_depend_on_the_pieces(
    text: str, columns: int, cuts: list[int]
) -> None:
    text = text.replace("\x1b", "")
    assert in_pieces(text, columns, cuts) == wrapped(text, columns)


@given(TEXTS, st.integers(0, 12))
def test_row_173_only_spaces_become_line_breaks_and_no_word_changes(
    text: str, columns: int
) -> None:
    text = text.replace("\x1b", "")
    shown = wrapped(text, columns)
    assert re.split(r"[ \t\n]+", shown.rstrip(" \t")) == re.split(r"[ \t\n]+", text.rstrip(" \t"))
    if columns == 0:
        assert shown == text


@given(st.lists(st.text("abcé", min_size=1, max_size=14), min_size=1), st.integers(1, 12))
def test_row_173_no_word_that_fits_into_a_line_is_cut(words: list[str], columns: int) -> None:
    column = 0
    for line in wrapped(" ".join(words), columns).split("\n"):
        for number, word in enumerate(line.split(" ")):
            column = (column + 1 if number else 0) % columns
            assert column + len(word) <= columns or len(word) > columns
            column += len(word)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint('a line of code that is long')\n```\n",
        "~~~~\na line of code ~~~\n~~~\nanother that is too long\n~~~~\n",
        "- item:\n\n    ```\n    a line of code that is long\n    ```\n",
        "    indented_like = code(that, is, long)\n",
        "\tindented_like = code(that, is, long)\n",
        "| a table | has rows | as they are |\n",
        "https://example.org/a/very/long/address\n",
        "```\nno end of the code: it goes on and on",
    ],
)
def test_row_173_code_tables_and_long_words_are_left_as_they_are(text: str) -> None:
    assert wrapped(text, 20) == text
    assert in_pieces(text, 20, list(range(60))) == text


def test_row_173_behind_code_lines_break_again() -> None:
    text = "```\nlong lines of code\n```\nlong lines of text"
    assert wrapped(text, 10) == "```\nlong lines of code\n```\nlong lines\nof text"
    # Code in a line of text is text, and so is an item of a list that is indented.
    text = "```code in a line``` of text\nlong lines of text"
    assert wrapped(text, 10) == "```code in a line``` of text\nlong lines\nof text"
    assert wrapped("    - an item of a list", 14) == "    - an item\nof a list"
    assert wrapped("    1. an item of a list", 14) == "    1. an item\nof a list"


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("狗狗 ab cd", 7, "狗狗 ab\ncd"),  # two columns each
        ("ab 狗狗狗狗 cd", 7, "ab 狗狗狗狗 cd"),  # breaks anywhere, and the second line has room
        ("abcd 狗 ef", 5, "abcd\n狗 ef"),
        ("e\u0301e\u0301e\u0301 e\u0301 ab", 5, "e\u0301e\u0301e\u0301 e\u0301\nab"),
        ("🐑🐑 ab cd", 7, "🐑🐑 ab\ncd"),
        ("a\tbc de", 10, "a\tbc\nde"),
        ("a\tbcd", 10, "a\nbcd"),
        ("ab cd  \nef", 5, "ab cd\nef"),  # else the spaces would take a line of their own
        ("ab  cd", 5, "ab\ncd"),
        ("abcde\nfg", 5, "abcde\nfg"),
        # On its second line, the long word leaves room for hi.
        ("abcdefg hi jk", 5, "abcdefg hi\njk"),
        ("a\u00a0b c", 3, "a\u00a0b\nc"),
    ],
)
def test_row_173_columns_are_counted_as_a_terminal_does(
    text: str, columns: int, expected: str
) -> None:
    assert wrapped(text, columns) == expected


def test_row_173_styles_take_no_room() -> None:
    text = "\x1b[1mone two\x1b[0m \x1b[36mthree \x1b[0mfour"
    shown = wrapped(text, 8)
    assert SGR.sub("", shown) == "one two\nthree\nfour"
    assert SGR.findall(shown) == SGR.findall(text)


def test_row_173_a_window_that_changes_its_size() -> None:
    size = 20
    wrap = WordWrap(lambda: size)
    shown = wrap.push("one two three ")
    size = 10
    shown += wrap.push("four five six seven ")
    size = 40
    shown += wrap.push("eight nine ten eleven twelve") + wrap.finish()
    assert shown == "one two three\nfour five\nsix seven eight nine ten eleven twelve"


def test_row_173_generated_text_on_a_terminal_and_in_a_pipe() -> None:
    ask = ("generate", "-m", "demo", "--seed", "3", "--max-tokens", "60", "Once upon a time")
    piped = run(*ask).out.decode()
    for columns in (40, 80):
        expected = textwrap.fill(piped, columns, break_on_hyphens=False)
        shown = on_terminal(*ask, columns=columns)
        assert shown.out.decode() == expected.replace("\n", "\r\n") + "\r\n"
    as_it_is = on_terminal(*ask, "--no-stream", columns=40)
    assert as_it_is.out.decode() == f"{piped}\r\n"


def test_row_173_errors_on_a_terminal_break_between_words_and_begin_in_red() -> None:
    ask = ("generate", "-m", "a-model-that-nobody-has-ever-heard-of", "Hello")
    said = run(*ask).err
    assert said.count("\n") == 1
    expected = textwrap.fill(said, 80, break_on_hyphens=False, break_long_words=False)
    for env, head in (({}, "\x1b[1;31merror:\x1b[0m"), ({"NO_COLOR": "1"}, "error:")):
        terminal = Terminal(*ask, env=env)
        assert terminal.end() == 2
        shown = terminal.out.decode().replace("\r\n", "\n")
        assert shown == expected.replace("error:", head, 1) + "\n"
