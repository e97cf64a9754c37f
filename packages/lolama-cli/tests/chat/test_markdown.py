"""Markdown while it streams: nothing is lost, nothing changes its place, however the text is cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lolama_cli.chat.markdown import MarkdownStream

SGR = re.compile(r"\x1b\[[0-9;]*m")
# Mostly what has a meaning, in the order and out of it.
TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "*",
                "**",
                "***",
                "`",
                "``",
                "```",
                "~~~",
                "#",
                "## ",
                "# T",
                "\n",
                "\n\n",
                " ",
                "  ",
            ),
            *(
                "- ",
                "> ",
                "1. ",
                "|",
                "_",
                "a",
                "word",
                "**bold**",
                "`code`",
                "*it*",
                "é✓",
                "```py\n",
            ),
        ]
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="\x1b"), max_size=3),
    max_size=30,
).map("".join)


def shown(text: str, cuts: list[int]) -> str:
    stream = MarkdownStream()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    return "".join(map(stream.push, pieces)) + stream.finish()


def cells(output: str) -> list[tuple[str, str]]:
    """Each visible character with the style it is shown in."""
    found, style = [], "0"
    for part in re.split(r"(\x1b\[[0-9;]*m)", output):
        if SGR.fullmatch(part):
            style = part[2:-1]
        else:
            found += [(character, style) for character in part]
    return found


def without_marks(text: str) -> str:
    """What must be visible, worked out line by line from the whole text, by other means."""
    out, fence = [], ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = re.match(r" {0,3}(```+|~~~+)", line)
        if fence:
            if found and line.strip().startswith(fence) and set(line.strip()) == {fence[0]}:
                fence = ""
            out.append(line)
        elif found and "`" not in line[found.end() :]:
            fence = found[1]
            out.append(line)
        else:
            out.append(_without_spans(re.sub(r"^#{1,6} +(?=\S)", "", line)))
    return "".join(out)


def _without_spans(line: str) -> str:
    out, place = "", 0
    while place < len(line):
        mark = re.compile(r"\*+|`+").match(line, place)
        if mark is None:
            out += line[place]
            place += 1
            continue
        m, end = mark[0], mark.end()
        before = line[place - 1] if place else "\n"
        opens = m[0] == "`" or (
            len(m) <= 3 and not before.isalnum() and end < len(line) and not line[end].isspace()
        )
        tail = r"(?<!\s)" if m[0] == "*" else ""
        after = r"(?![^\W_])" if m[0] == "*" else ""
        escaped, char = re.escape(m), re.escape(m[0])
        partner = re.compile(f"(?<!{char}){tail}{escaped}(?!{char}){after}")
        close = partner.search(line, end) if opens else None
        if close is None or close.end() - place > 400:
            out += m
            place = end
        else:
            out += line[end : close.start()]
            place = close.end()
    return out


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 500), max_size=20))
def test_visible_text_is_the_text_without_its_marks_however_it_is_cut(
    text: str, cuts: list[int]
) -> None:
    whole = shown(text, [])
    assert SGR.sub("", whole) == without_marks(text)
    for places in (cuts, list(range(len(text)))):
        assert cells(shown(text, places)) == cells(whole)


@given(TEXTS)
def test_styles_end_where_they_should(text: str) -> None:
    output = shown(text, [])
    assert all(style == "0" for character, style in cells(output) if character == "\n")
    assert cells(output + ".")[-1] == (".", "0")


@given(st.text(st.characters(codec="utf-8", exclude_characters="*`#~\x1b")))
def test_text_without_marks_comes_at_once(text: str) -> None:
    stream = MarkdownStream()
    held = 0
    for character in text:
        held += 1 - len(stream.push(character))
        assert held <= 4  # spaces before what may be a fence
    assert held == len(stream.finish())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**bold** and *it*", "\x1b[1mbold\x1b[0m and \x1b[3mit\x1b[0m"),
        ("# Title\nx", "\x1b[1mTitle\x1b[0m\nx"),
        ("## A *b*", "\x1b[1mA \x1b[0m\x1b[1;3mb\x1b[0m"),
        ("`x*y*z`", "\x1b[36mx*y*z\x1b[0m"),
        ("``a`b``", "\x1b[36ma`b\x1b[0m"),
        ("2 * 3 * 4, 2*3*4, a ** b", "2 * 3 * 4, 2*3*4, a ** b"),
        ("**open", "**open"),
        ("* item\n- item", "* item\n- item"),
        ("#hashtag # no", "#hashtag # no"),
        (
            "```py\n# **x**\n```\nend",
            "\x1b[2m```py\x1b[0m\n\x1b[36m# **x**\x1b[0m\n\x1b[2m```\x1b[0m\nend",
        ),
        ("snake_case_name __init__", "snake_case_name __init__"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert shown(text, []) == expected
    assert cells(shown(text, list(range(len(text))))) == cells(expected)


def test_without_colors() -> None:
    stream = MarkdownStream(colors=False)
    assert stream.push("`x` ") == "\x1b[2mx\x1b[0m "


def test_what_is_held_back_is_bounded() -> None:
    stream = MarkdownStream()
    assert stream.push("**" + "a" * 390) == ""
    assert stream.push("a" * 20) == "**" + "a" * 410
    text = "```" + "a" * 1000 + "\n```\n**b**"
    assert SGR.sub("", MarkdownStream().push(text[:500])) == text[:500]
    assert cells(shown(text, list(range(len(text))))) == cells(shown(text, []))
