"""Docstrings and comments begin as sentences do, and state a limit plainly."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("packages/*/src", "packages/*/tests", "tests", "benchmarks", "training", "nox_sessions")
WRONG = re.compile(
    r"^(# )?Of\b"  # a sentence that begins in the middle
    r"|^ +[\w, ]+: Of\b"  # an argument that is "of" something, and not said what
    r"|\b[Ss]o (many|few)\b(?! \w+ that)",  # a number that the reader has to look up
    re.MULTILINE,
)


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Each docstring and comment with its line; strings that stand alone are docstrings."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def wrong(source: str) -> list[int]:
    """The lines of the docstrings and comments that are wrong."""
    return [line for line, text in prose(source) if WRONG.search(text)]


def test_docstrings_and_comments_are_whole_sentences() -> None:
    files = [path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")]
    assert len(files) > 500
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in wrong(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        '"""Of the keys and values."""',
        'LIMIT = 3\n"""Up to so many rows."""',
        "# So few rows are limited by memory.\nLIMIT = 3",
        'def f(x):\n    """Do it.\n\n    Args:\n        x: Of the model.\n    """',
        "# Of both.\nx = 1",
    ],
)
def test_what_is_wrong_is_found(planted: str) -> None:
    assert len(wrong(planted)) == 1


@pytest.mark.parametrize(
    "allowed",
    [
        '"""The dtype of keys and values."""',
        '"""So many values that memory ends."""',
        'text = "so many"',
        'def f(x):\n    """Do it.\n\n    Args:\n        x: The model\'s. Of no use to others.\n    """',
    ],
)
def test_what_is_right_stays(allowed: str) -> None:
    assert wrong(allowed) == []
