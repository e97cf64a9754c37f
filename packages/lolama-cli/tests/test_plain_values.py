"""Values that are read without pydantic: as typer reads them, or left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from lolama_cli.plain_values import read_plain_values


def bits(value: Any) -> int:
    """A parser, which typer finds among the names of this module."""
    return 2 * int(value)


def command(*, plain: bool) -> Any:
    app = typer.Typer(add_completion=False)

    @app.command()
    def take(
        text: Annotated[str | None, typer.Option()] = None,
        texts: Annotated[list[str] | None, typer.Option()] = None,
        whole: Annotated[int, typer.Option()] = 1,
        number: Annotated[float, typer.Option()] = 0.5,
        ranged: Annotated[int, typer.Option(min=2)] = 3,
        word: Annotated[Literal["a", "b"], typer.Option()] = "a",
        file: Annotated[Path | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
        parsed: Annotated[int, typer.Option(parser=bits)] = 4,
    ) -> None: ...

    made = typer.main.get_command(app)
    if plain:
        read_plain_values(made)
    return made


def read(arguments: list[str], *, plain: bool, defaults: dict[str, Any] | None = None) -> str:
    """What the command is given, or what its error says."""
    try:
        context = command(plain=plain).make_context(
            "take", [*arguments], default_map=defaults or {}
        )
    except typer.TyperException as error:
        return f"{type(error).__name__}: {error.message}"
    return repr(context.params)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *(["--text", text] for text in ("", "a b", "é", "\udcff", "1")),
        ["--texts", "a", "--texts", "5,7"],
        ["--texts", "\udcff"],
        *(
            ["--whole", text]
            for text in (
                "1",
                "-1",
                "007",
                "-0",
                "1_000",
                " 1 ",
                "1.0",
                "1e3",
                "+1",
                "9" * 30,
                "١",
                "x",
            )
        ),
        *(
            ["--number", text]
            for text in (
                "1",
                "-0.25",
                "00.5",
                ".5",
                "5.",
                "1e-3",
                "inf",
                "nan",
                "1_0",
                " 1",
                "0.1234567891",
            )
        ),
        *(["--ranged", text] for text in ("1", "2", "x")),
        *(["--word", text] for text in ("a", "c", "A")),
        *(["--file", text] for text in ("a", "/", "")),
        ["--flag"],
        *(["--parsed", text] for text in ("8", "x")),
    ],
)
def test_values_are_what_typer_makes_of_them(arguments: list[str]) -> None:
    assert read(arguments, plain=True) == read(arguments, plain=False)


@pytest.mark.parametrize(
    "defaults",
    [{"whole": 2}, {"whole": True}, {"number": 1}, {"number": 2.5}, {"flag": True}, {"word": "b"}],
)
def test_defaults_are_what_typer_makes_of_them(defaults: dict[str, Any]) -> None:
    assert read([], plain=True, defaults=defaults) == read([], plain=False, defaults=defaults)


def test_what_is_plain_is_not_left_to_typer() -> None:
    made = command(plain=True)
    for parameter in made.get_params(typer.Context(made)):
        if parameter.name != "ranged":  # a range is not plain
            parameter.get_runtime_param()._of_typer = None  # fails if it is asked
    arguments = ["--text", "a", "--texts", "b", "--whole", "5", "--number", "0.7", "--word", "b"]
    context = made.make_context("take", [*arguments, "--flag", "--parsed", "8"])
    assert context.params["whole"] == 5 and context.params["number"] == 0.7
    assert context.params["parsed"] == 16
