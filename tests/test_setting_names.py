"""Errors call a setting what Python calls it; the command line puts its options in their place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from lolama_cli.app import app
from lolama_cli.command_words import OPTIONS, in_options

PACKAGES = Path(__file__).resolve().parents[1] / "packages"
LIBRARIES = ["lolama_core", "lolama_vision", "lolama_quant", "lolama_hub", "lolama_serve", "lolama"]
# Programs with options of their own.
PROGRAMS = {"lolama_core/__main__.py", "lolama_hub/testing/stand_in_hub.py"}
# An option of pip, and of the first README, which names both ways of agreeing.
HONEST = re.compile(r"`pip install --[\w-]+ |with --yes, in Python with confirm=True")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]+")
CODE = re.compile(r"`(\w+)(?:=[^`]+)?`")


def strings(package: str) -> Iterator[tuple[str, str]]:
    """Where, and the text, of every string of a package that is no docstring."""
    (root,) = PACKAGES.glob(f"*/src/{package}")
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root.parent).as_posix()
        if where in PROGRAMS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or id(node) in docstrings:
                continue
            if isinstance(node.value, str):
                yield f"{where}:{node.lineno}", node.value


def options_in(text: str) -> list[str]:
    return OPTION.findall(HONEST.sub("", text))


@pytest.mark.parametrize("package", LIBRARIES)
def test_row_205_no_library_speaks_of_an_option(package: str) -> None:
    found = [(where, text) for where, text in strings(package) if options_in(text)]
    assert not found


def test_row_205_an_option_in_a_library_would_be_seen() -> None:
    assert options_in("use --raw to do without it") == ["--raw"]
    assert options_in("--top-p") == ["--top-p"]
    assert options_in("`pip install --upgrade lolama-core`, or --dtype float32") == ["--dtype"]
    assert not options_in("models--owner--name")


@pytest.mark.parametrize("package", LIBRARIES)
def test_row_205_the_command_has_a_word_for_every_setting_in_a_remedy(package: str) -> None:
    codes = {code for _, text in strings(package) for code in CODE.findall(text)}
    known_elsewhere = {"chat", "promise", "lolama"}  # of the object, of pytest, the program
    assert codes - known_elsewhere <= OPTIONS.keys()


def test_row_205_every_word_of_the_command_is_one_of_its_options() -> None:
    commands = getattr(get_command(app), "commands").values()  # noqa: B009 # of a typed group
    known = {name for command in commands for each in command.params for name in each.opts}
    assert set(OPTIONS.values()) <= known


@pytest.mark.parametrize(
    ("remedy", "typed"),
    [
        ("use `generate` to do without it", "use --raw to do without it"),
        ('overflow in this dtype: try `dtype="float32"`', "overflow in this dtype: try --dtype float32"),
        ('use `dtype="float32"` or bfloat16', "use --dtype float32 or bfloat16"),
        ("use fewer tokens, or `quantize=True`", "use fewer tokens, or --quantize"),
        ("use `confirm=True` not to be asked", "use --yes not to be asked"),
        ("raise the limit, as with `ulimit -n 1024`", "raise the limit, as with `ulimit -n 1024`"),
        ("give text; `chat` takes messages", "give text; `chat` takes messages"),
    ],
)  # fmt: skip
def test_row_205_remedies_of_the_command_are_options(remedy: str, typed: str) -> None:
    assert in_options(remedy) == typed
