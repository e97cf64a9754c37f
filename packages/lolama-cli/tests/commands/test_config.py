"""``lolama config``, and where the defaults of options come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from warm_program import on_terminal, run

from lolama_cli.defaults import KEYS


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"LOLAMA_CONFIG": str(tmp_path / "folder" / "config.toml")}


def settings(env: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("config", "show", "--json", env=env).out)["settings"]
    return found


def test_option_before_environment_before_file_before_program(
    base: Path, env: dict[str, str]
) -> None:
    def length(*options: str, **more: str) -> int:
        outcome = run("generate", "-m", base, *options, "z", env=env | more)
        assert (outcome.code, outcome.err) == (0, "")
        return len(outcome.out)

    assert run("config", "set", "max-tokens", "5", env=env).code == 0
    assert length() == 5
    assert length(LOLAMA_MAX_TOKENS="4") == 4
    assert length("--max-tokens", "3", LOLAMA_MAX_TOKENS="4") == 3
    assert run("config", "unset", "max-tokens", env=env).code == 0
    assert length() == 256


def test_the_model_may_be_set_but_never_what_a_command_acts_on(
    base: Path, env: dict[str, str]
) -> None:
    assert run("config", "set", "model", str(base), env=env).code == 0
    assert run("generate", "--max-tokens", "2", "z", env=env).out == b"ab"
    run("rm", env=env).refused(2, "model", "lolama rm")


def test_show_get_and_path(env: dict[str, str]) -> None:
    run("config", "set", "temperature", "0.5", env=env)
    rows = [line.split("\t") for line in run("config", "show", env=env).out.decode().splitlines()]
    assert rows[0] == ["key", "value", "from"]
    assert [row[0] for row in rows[1:]] == list(KEYS)
    assert ["temperature", "0.5", "file"] in rows
    assert ["no-stream", "false", "program"] in rows
    shown = settings(env | {"LOLAMA_TOP_K": "7"})
    assert shown["top-k"] == {"value": 7, "from": "LOLAMA_TOP_K"}
    assert shown["seed"] == {"value": None, "from": "program"}
    assert run("config", "get", "temperature", env=env).out == b"0.5\n"
    assert run("config", "get", "seed", env=env).out == b""
    assert run("config", "path", env=env).out.decode() == env["LOLAMA_CONFIG"] + "\n"
    outcome = on_terminal("config", "show", env=env)
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out.decode())
    assert max(map(len, text.splitlines())) <= 80


def test_comments_in_the_file_stay(env: dict[str, str]) -> None:
    file = Path(env["LOLAMA_CONFIG"])
    file.parent.mkdir()
    file.write_text("# mine\ntop-p = 0.5 # less\n")
    run("config", "set", "top-k", "3", env=env)
    run("config", "set", "top-p", "0.6", env=env)
    assert file.read_text() == "# mine\ntop-p = 0.6 # less\ntop-k = 3\n"
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "temprature", "1"), ("temprature", "did you mean temperature?")),
        (("set", "temperature", "hot"), ("temperature", "'hot'", "expected a number")),
        (("set", "top-p", "3"), ("top-p", "3.0", "probability")),
        (("set", "top-k", "1.5"), ("top-k", "'1.5'", "whole number")),
        (("set", "no-stream", "perhaps"), ("no-stream", "true or false")),
        (("set", "dtype", "int4"), ("dtype", "'int4'", "float32")),
        (("set", "device", "abacus"), ("device", "abacus", "use cpu")),
        (("get", "tops"), ("tops",)),
        (("unset", "xyzzy"), ("xyzzy", "known are")),
        (("gett", "top-p"), ("no such command", "did you mean get?")),
        ((), ("lolama config", "--help")),
    ],
)
def test_what_cannot_be_set(
    env: dict[str, str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run("config", *arguments, env=env).refused(2, *words)
    assert not Path(env["LOLAMA_CONFIG"]).exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("temprature = 1\n", ("'temprature'", "did you mean temperature?")),
        ('temperature = "hot"\n', ("temperature", "'hot'", "a number")),
        ("temperature = true\n", ("temperature", "True", "a number")),
        ("top-p = 4\n", ("top-p", "probability")),
        ("[generate]\ntop-p = 1\n", ("'generate'",)),
        ("top-p = \n", ("not valid TOML", "line 1")),
        ("\xff", ("UTF-8",)),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line_and_never_in_the_way_of_mending_it(
    env: dict[str, str], content: str, words: tuple[str, ...]
) -> None:
    file = Path(env["LOLAMA_CONFIG"])
    file.parent.mkdir()
    file.write_bytes(content.encode("latin-1"))
    run("generate", "-m", "demo", "z", env=env).refused(2, str(file), *words)
    for arguments in (("generate", "--help"), ("config", "path"), ("models",), ("--help",)):
        assert run(*arguments, env=env).code == 0


def test_a_key_that_is_no_key_can_be_removed(env: dict[str, str]) -> None:
    file = Path(env["LOLAMA_CONFIG"])
    file.parent.mkdir()
    file.write_text("temprature = 1\n")
    assert run("config", "unset", "temprature", env=env).code == 0
    assert file.read_text() == ""


def test_a_variable_that_makes_no_sense(env: dict[str, str]) -> None:
    bad = env | {"LOLAMA_TOP_P": "7"}
    run("generate", "-m", "demo", "z", env=bad).refused(2, "LOLAMA_TOP_P", "probability")


def test_an_error_about_a_default_names_where_it_comes_from(env: dict[str, str]) -> None:
    run("config", "set", "device", "cuda:99", env=env)
    command = ("generate", "-m", "demo", "z")
    run(*command, env=env).refused(2, env["LOLAMA_CONFIG"], "--device", "not available")
    typed = ("generate", "-m", "demo", "--device", "cuda:98", "z")
    run(*typed, env=env).refused(2, "error: --device: cuda:98")


def test_help_shows_the_default_in_force(env: dict[str, str]) -> None:
    run("config", "set", "max-tokens", "77", env=env)
    assert "[default: 77]" in " ".join(run("generate", "--help", env=env).out.decode().split())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOLAMA_MAXTOKENS", "LOLAMA_MAX_TOKENS"),
        ("LOLAMA_MAX_TOKEN", "LOLAMA_MAX_TOKENS"),
        ("LOLAMA_TEMP", "LOLAMA_TEMPERATURE"),
        ("LOLAMA_TEMPRATURE", "LOLAMA_TEMPERATURE"),
        ("LOLAMA_TOPP", "LOLAMA_TOP_P"),
        ("LOLAMA_top_p", "LOLAMA_TOP_P"),
        ("LOLAMA_HOM", "LOLAMA_HOME"),
        ("LOLAMA_CONFG", "LOLAMA_CONFIG"),
    ],
)
def test_row_175_a_misspelled_variable_is_mentioned(
    env: dict[str, str], name: str, meant: str
) -> None:
    outcome = run("config", "get", "model", env=env | {name: "3"})
    assert (outcome.code, outcome.out) == (0, b"tinyllama\n")
    assert outcome.err == f"note: {name} sets nothing; did you mean {meant}?\n"


def test_row_175_variables_of_others_are_left_alone(env: dict[str, str]) -> None:
    for name in ("LOLAMA_FUZZ_CASES", "LOLAMA_X", "OLLAMA_HOME", "LOLAMA_TOP_P"):
        assert run("config", "get", "model", env=env | {name: "1"}).err == ""
