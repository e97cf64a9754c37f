"""The command line itself: global options, and what a typo gets."""

from __future__ import annotations

import re
from pathlib import Path

import program
import pytest
from warm_program import run


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
        outcome = program.run(option)
        assert outcome.code == 0
        assert re.fullmatch(rb"lolama \d+\.\d+\.\d+\S*\n", outcome.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("lolama", "no command", "--help")),
        (("genrate",), ("no such command", "did you mean generate?")),
        (("generate", "--temprature", "1", "z"), ("--temprature", "did you mean --temperature?")),
        (("generate", "--temper", "1", "z"), ("--temper", "did you mean --temperature?")),
        (("generate", "--te", "1", "z"), ("did you mean --temp or --temperature or --template?",)),
        (("generate", "-p", "Hello"), ("-p", "no such option", "without an option", "--top-p")),
        (("generate", "-t", "8", "z"), ("-t", "no such option", "did you mean --temp?")),
        (("chat", "--n-predict", "8"), ("did you mean --max-tokens?",)),
        (("info", "-t", "8", "demo"), ("-t", "no such option", "lolama info --help")),
        (("run", "demo"), ("no such command 'run'", "chat", "generate")),
        (("list",), ("did you mean models?",)),
        (("ls",), ("did you mean models?",)),
        (("show", "demo"), ("did you mean info?",)),
        (("ps",), ("no such command 'ps'", "/api/ps", "models")),
        (("stop", "demo"), ("no such command 'stop'", "Ctrl-C")),
        (("serve", "-c", "4096"), ("-c: no such option; did you mean --context?",)),
        (("serve", "--ctx-size", "4096"), ("did you mean --context?",)),
        (("serve", "--model-draft", "demo"), ("did you mean --draft?",)),
        (("generate", "--seed"), ("--seed", "requires an argument", "lolama generate --help")),
        (("rm",), ("model: is missing; see lolama rm --help",)),
        (("config", "set"), ("key: is missing; see lolama config set --help",)),
        (("generate", "--seed", "x", "z"), ("--seed", "is not a whole number")),
        (("generate", "--top-p", "x", "z"), ("--top-p", "is not a number")),
        (("generate", "--dtype", "x", "z"), ("--dtype", "float32")),
        (("generate", "--cache-dtype", "int4", "z"), ("--cache-dtype", "int8")),
        (("chat", "--cache-dtype", "float16"), ("--cache-dtype", "int8")),
        (("eval", "--cache-dtype", ""), ("--cache-dtype", "int8")),
        (("generate", "once", "upon"), ("takes one argument", "quotes")),
        (("generate", "-m", "dmeo", "z"), ("dmeo", "did you mean demo?")),
        (("generate", "-m", "tinylama", "z"), ("tinylama", "did you mean tinyllama?")),
        (("generate", "-m", "xyzzy", "z"), ("tinyllama", "(demo and demo-vision are built in)")),
        (("rm", "demo"), ("model 'demo'", "is built in", "no download to delete")),
        (("pull", "demo"), ("is built in", "nothing to download")),
        (("generate", "-m", "./nowhere", "z"), ("nowhere", "no such folder")),
        (("generate", "-m", "", "z"), ("model",)),
    ],
)
def test_a_command_line_that_makes_no_sense(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    run(*arguments, env={"LOLAMA_HOME": str(tmp_path)}).refused(2, *words)


def test_a_model_that_is_not_here_and_no_connection_allowed() -> None:
    run("generate", "z").refused(
        4, "TinyLlama", "is not downloaded", "lolama pull", "demo and demo-vision are built in"
    )


def leaf_commands() -> list[tuple[str, ...]]:
    from lolama_cli.app import root_command

    found: list[tuple[str, ...]] = []
    for name, command in root_command().commands.items():
        below = getattr(command, "commands", None)
        found += [(name, sub) for sub in below] if below else [(name,)]
    return found


@pytest.mark.parametrize("command", leaf_commands())
def test_row_176_verbose_and_debug_behind_every_command(command: tuple[str, ...]) -> None:
    usage = run(*command, "--help")
    assert usage.code == 0
    assert b"-v, --verbose" in usage.out
    assert b"--debug" in usage.out
    # The traceback of an error shows that the option was heard, wherever it stands.
    for place in range(len(command) + 1):
        arguments = [*command[:place], "--debug", *command[place:], "--no-such-option"]
        outcome = run(*arguments)
        assert outcome.code == 2
        heard = "Traceback" in outcome.err
        assert heard == (place < len(command)), arguments


def test_row_176_what_is_told_does_not_depend_on_the_place(base: Path) -> None:
    ask = ("generate", "-m", base, "-n", "3", "z")
    for arguments in (("-v", *ask), (*ask, "-v"), (ask[0], "--verbose", *ask[1:])):
        outcome = run(*arguments)
        assert (outcome.code, outcome.out) == (0, b"abc")
        assert "2 prompt tokens, 3 new" in outcome.err
    outcome = run("generate", "-m", base / "nowhere", "z", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    # As the value of an option, or behind --, it is what it says.
    outcome = run("generate", "-m", base, "-n", "3", "--stop", "-v", "--", "-v")
    assert (outcome.code, outcome.err) == (0, "")


def test_short_forms_of_options(base: Path) -> None:
    long = ("generate", "-m", base, "--max-tokens", "3", "--temperature", "0", "z")
    short = ("generate", "-m", base, "-n", "3", "--temp", "0", "z")
    assert run(*short).out == run(*long).out == b"abc"
