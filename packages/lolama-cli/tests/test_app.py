"""The command line itself: start-up, global options, and what a typo gets."""

from __future__ import annotations

import re

import pytest
from program import Outcome, run


def fastest(*arguments: str) -> Outcome:
    """The best of three: this machine may have other things to do."""
    return min((run(*arguments) for _ in range(3)), key=lambda outcome: outcome.seconds)


def test_help_is_fast_and_needs_no_torch() -> None:
    outcome = run("--help", python=("-X", "importtime"))
    assert outcome.code == 0
    assert "| lolama_cli.app" in outcome.err
    assert "| torch" not in outcome.err
    assert fastest("--help").seconds < 1  # 0.1 s on an idle machine; the promise is 0.3 s


def test_bad_options_are_answered_before_torch_is_imported() -> None:
    outcome = run("generate", "--top-p", "2", "z", python=("-X", "importtime"))
    assert outcome.code == 2
    assert "| torch" not in outcome.err
    assert fastest("generate", "--top-p", "2", "z").seconds < 1


def test_help_names_every_option_and_its_default() -> None:
    text = run("generate", "--help").out.decode()
    for option in (
        *("-m, --model", "-i, --image", "--max-tokens", "--temperature", "--top-p", "--top-k"),
        *("--min-p", "--repetition-penalty", "--stop", "--seed", "--no-stream", "--raw"),
        *("--quantize", "--device", "--dtype", "--system", "--template", "-h, --help"),
    ):
        assert option in text
    joined = " ".join(text.split())
    for default in ("tinyllama", "256", "0.7", "0.9", "1.1"):
        assert f"[default: {default}]" in joined


def test_version() -> None:
    for option in ("-V", "--version"):
        outcome = run(option)
        assert outcome.code == 0
        assert re.fullmatch(rb"lolama \d+\.\d+\.\d+\S*\n", outcome.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("lolama", "no command", "--help")),
        (("genrate",), ("no such command", "did you mean generate?")),
        (("generate", "--temprature", "1", "z"), ("--temprature", "did you mean --temperature?")),
        (("generate", "--temper", "1", "z"), ("--temper", "did you mean --temperature?")),
        (("generate", "--temp", "1", "z"), ("did you mean --temperature or --template?",)),
        (("generate", "--seed"), ("--seed", "requires an argument")),
        (("generate", "--seed", "x", "z"), ("--seed", "is not a whole number")),
        (("generate", "--top-p", "x", "z"), ("--top-p", "is not a number")),
        (("generate", "--dtype", "x", "z"), ("--dtype", "float32")),
        (("generate", "once", "upon"), ("takes one argument", "quotes")),
        (("generate", "-v", "z"), ("-v", "before the command", "lolama -v generate")),
        (("generate", "-m", "dmeo", "z"), ("dmeo", "did you mean demo?")),
        (("generate", "-m", "tinylama", "z"), ("tinylama", "did you mean tinyllama?")),
        (("generate", "-m", "./nowhere", "z"), ("nowhere", "no such folder")),
        (("generate", "-m", "", "z"), ("model",)),
    ],
)
def test_a_command_line_that_makes_no_sense(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run(*arguments).refused(2, *words)


def test_a_model_that_is_not_here_and_no_connection_allowed() -> None:
    run("generate", "z").refused(
        4, "TinyLlama", "is not downloaded", "lolama pull", "demo and demo-vision are built in"
    )
