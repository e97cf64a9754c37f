"""A comment on a statement of several lines stands above it, and not behind its last bracket.

The formatter breaks a statement that is too long with its comment, and leaves the comment at the end.
"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("packages/*/src", "packages/*/tests", "tests", "benchmarks", "training", "nox_sessions")
FOR_TOOLS = re.compile(r"# *(fmt:|type:|noqa|pragma:|pyright:)")


def left_behind(source: str) -> list[int]:
    """The lines that begin by closing a bracket of an earlier line, and end with a comment."""
    opened: list[int] = []
    found, line, closes = [], 0, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_first = token.start[0] != line
        closes = closes and not is_first
        line = token.start[0]
        if token.type == tokenize.OP and token.string in "([{":
            opened.append(line)
        elif token.type == tokenize.OP and token.string in ")]}":
            closes = (opened.pop() < line and is_first) or closes
        elif token.type == tokenize.COMMENT and closes and not FOR_TOOLS.match(token.string):
            found.append(line)
        line = token.end[0]
    return found


def test_no_comment_is_left_behind_a_bracket() -> None:
    files = [
        ROOT / "noxfile.py",
        *(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")),
    ]
    assert len(files) > 500
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in left_behind(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        "x = (\n    1\n)  # why",
        "if f(\n    x\n):  # why\n    pass",
        "try:\n    pass\nexcept (\n    ValueError\n) as error:  # why\n    pass",
        "x = [\n    (\n        1,\n        2,\n    ),  # why\n]",
        "x = f(\n    1,\n).y(2)  # why",
    ],
)
def test_a_comment_that_is_left_behind_is_found(planted: str) -> None:
    assert left_behind(planted + "\n") == [planted[: planted.index("#")].count("\n") + 1]


@pytest.mark.parametrize(
    "allowed",
    [
        "# why\nx = (\n    1\n)",
        "x = f(1)  # why",
        "x = (  # why\n    1\n)",
        "x = (\n    1,  # why\n    (2),  # why\n)",
        "x = [\n    1,\n]  # fmt: skip",
        "x = (\n    1\n)  # type: ignore[assignment]",
        "x = '''\n)  # why\n'''",
    ],
)
def test_other_comments_stay(allowed: str) -> None:
    assert left_behind(allowed + "\n") == []
