"""``--quantize`` with and without a number, and which of the models that are kept it finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from warm_program import run

import lolama
from lolama import memory, names, quantize, wiring
from lolama.bits import number_of_bits
from lolama_cli.app import root_command
from lolama_cli.quantize_option import completed
from lolama_core.protocols.errors import UsageError

GREEDY = ("-m", "demo", "--temperature", "0", "--max-tokens", "8")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own for each test."""
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--quantize Hello", "--quantize=8 Hello"),
        ("Hello --quantize", "Hello --quantize=8"),
        ("--quantize 4 Hello", "--quantize=4 Hello"),
        ("--quantize 8", "--quantize=8"),
        ("--quantize=4 4", "--quantize=4 4"),
        ("--quantize 16", "--quantize=8 16"),
        ("--quantize -n 4", "--quantize=8 -n 4"),
        ("--no-stream --quantize 4", "--no-stream --quantize=4"),
        ("--system --quantize 4", "--system --quantize 4"),
        ("-- --quantize 4", "-- --quantize 4"),
        ("--quantize 16 Hello", "--quantize=16 Hello"),
        ("--quantize 16 -n 4 --json", "--quantize=8 16 -n 4 --json"),
        ("--quantize 16 -- -5", "--quantize=16 -- -5"),
        ("--quantize 16 -", "--quantize=16 -"),
        ("--quantize Hello 16", "--quantize=8 Hello 16"),
    ],
)
def test_a_number_is_taken_and_a_prompt_is_not(given: str, read: str) -> None:
    generate: Any = root_command().commands["generate"]
    assert completed(given.split(), generate.params) == read.split()


def test_a_command_without_the_option_is_left_alone() -> None:
    info: Any = root_command().commands["info"]
    assert completed(["--quantize", "4"], info.params) == ["--quantize", "4"]


@pytest.mark.parametrize("number", ["5", "", "4.0", "-4"])
def test_other_numbers(number: str) -> None:
    run("generate", *GREEDY, f"--quantize={number}", "x").refused(2, "--quantize", "use 4 or 8")


def test_row_412_another_number_as_a_word_of_its_own(tmp_path: Path) -> None:
    words = ("--quantize: '5' is no number of bits; use 4 or 8",)
    run("generate", *GREEDY, "--quantize", "5", "Hello").refused(2, *words)
    run("chat", "-m", "demo", "--quantize", "5").refused(2, *words)
    run("bench", "-m", "demo", "--quantize", "5").refused(2, *words)
    run("eval", "-m", "demo", tmp_path / "a.txt", "--quantize", "5").refused(2, *words)


def test_row_459_four_bits_are_told_as_what_they_are(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    quantize.save(names.resolve("demo"), small, quantize.Options(bits=4, calibration=False))
    text = tmp_path / "a.txt"
    text.write_text("Once upon a time there was a dog.")
    told = run("eval", text, "-m", small).out.decode()
    assert told.startswith(f"model\t{small}, int4 and bfloat16 on cpu\n")
    assert json.loads(run("eval", text, "-m", small, "--json").out)["quantization"] == "int4"
    assert json.loads(run("eval", text, "-m", "demo", "--json").out)["quantization"] is None
    shown = run("-v", "generate", "-m", small, "-n", "1", "x").err
    # The embedding is none of them.
    assert re.search(r"int4 \(.+?\) for 42 linears, int8 \(.+?\) for 1 linear;", shown)


def test_four_bits_are_made_quickly_unless_fitted_ones_are_kept(home: Path) -> None:
    env = {"LOLAMA_HOME": str(home)}
    first = run("generate", *GREEDY, "--quantize", "4", "Once upon a time", env=env)
    assert first.code == 0
    quick, made = first.err.splitlines()
    words = "made without calibration; `lolama quantize` with 4 bits takes longer, and is truer"
    assert quick == words
    assert made.startswith("quantizing demo to int4, to be kept in ")
    again = run("-v", "generate", *GREEDY, "--quantize", "4", "Once upon a time", env=env)
    assert again.out == first.out and again.code == 0
    assert "quantiz" not in again.err and "int4 (" in again.err
    assert run("quantize", "-m", "demo", "--bits", "4", env=env).code == 0
    fitted = next(iter(wiring.quantized(names.resolve("demo"), 4).tensors.values())).path
    used = run("-v", "generate", *GREEDY, "--quantize", "4", "Once upon a time", env=env)
    assert f"read {fitted} " in used.err and f"read {fitted} " not in again.err


def test_row_413_four_bits_that_are_fitted_to_a_file_are_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama.calibration.TOKENS", 512)
    files, text = names.resolve("demo"), "Once upon a time there was a little dog named Dot. " * 60
    told: list[str] = []

    def keep(**options: Any) -> bytes:
        kept = quantize.keep(files, quantize.Options(bits=4, **options), tell=told.append)
        return next(iter(kept.tensors.values())).path.read_bytes()

    def found() -> bytes:
        used = wiring.quantized(files, 4, tell=told.append)
        return next(iter(used.tensors.values())).path.read_bytes()

    fitted = keep(text=text)
    assert found() == fitted == keep(text=text, lm_head=True) and len(told) == 1
    other = keep(text=text.replace("dog", "cat"))
    assert found() == other != fitted and len(told) == 2
    assert keep() not in (fitted, other) and len(told) == 3
    # What was asked for last is kept, and nothing else.
    assert len([*(home / "int8").iterdir()]) == 1


@pytest.mark.parametrize(
    ("bits", "asked"),
    [
        ("8", ("--lm-head",)),
        ("8", ("--outliers", "2")),
        ("4", ("--no-calibration", "--lm-head-bits", "4")),
        ("4", ("--no-calibration", "--embedding-bits", "16")),
    ],
)
def test_row_469_unusual_bits_that_are_kept_are_used_by_their_folder(
    home: Path, bits: str, asked: tuple[str, ...]
) -> None:
    env = {"LOLAMA_HOME": str(home)}
    made = run("quantize", "-m", "demo", "--bits", bits, *asked, env=env)
    [kept] = (home / "int8").iterdir()
    words = f"--quantize uses {bits} bits as they usually are; these are used by -m {kept}"
    assert made.code == 0 and words in made.err.splitlines()
    options = ("--temperature", "0", "--max-tokens", "2", "a")
    used = run("-v", "generate", "-m", kept, *options, env=env)
    assert used.code == 0 and f"read {kept}" in used.err and "quantiz" not in used.err
    others = run("-v", "generate", "-m", "demo", *options, f"--quantize={bits}", env=env)
    assert others.code == 0 and f"read {kept}" not in others.err
    assert f"quantizing demo to int{bits}, to be kept in " in others.err


@pytest.mark.parametrize(
    "asked",
    [
        ("--bits", "8"),
        ("--bits", "8", "--lm-head", "-o", "made"),
        ("--bits", "4", "--no-calibration", "--embedding-bits", "4", "--lm-head-bits", "8"),
        ("--bits", "4", "--no-calibration", "--lm-head-bits", "4", "-o", "made"),
    ],
)
def test_row_469_usual_bits_and_a_folder_of_the_user_need_no_word(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("quantize", "-m", "demo", *asked, env={"LOLAMA_HOME": str(home)})
    assert made.code == 0 and "--quantize uses" not in made.err


def test_a_model_that_has_other_bits_already_says_so(home: Path, tmp_path: Path) -> None:
    env = {"LOLAMA_HOME": str(home)}
    assert run("quantize", "-m", "demo", "-o", tmp_path / "int8", env=env).code == 0
    options = ("--temperature", "0", "--max-tokens", "3")
    found = run("generate", "-m", tmp_path / "int8", *options, "--quantize", "4", "a", env=env)
    assert found.code == 0
    assert found.err == f"{tmp_path / 'int8'} is quantized already, by int8, and stays so\n"
    assert not run("generate", "-m", tmp_path / "int8", *options, "--quantize", "a", env=env).err


def test_python_takes_a_number(home: Path) -> None:
    llm = lolama.load("demo", quantize=4)
    assert any("GroupedLinear" in str(type(part)) for part in llm.model.modules())
    assert wiring.scheme_of(llm.model) == "int4"
    assert wiring.scheme_of(lolama.load_model("demo", quantize=8)) == "int8"
    assert wiring.scheme_of(lolama.load_model("demo", quantize=False)) is None


@pytest.mark.parametrize("value", [1, 0, 16, 4.0, "4", None])
def test_numbers_of_bits_that_there_are_not(value: object) -> None:
    with pytest.raises(UsageError, match="is no number of bits; give True, False, 4 or 8"):
        number_of_bits(value)


def test_a_default_may_be_a_number(home: Path) -> None:
    env = {"LOLAMA_HOME": str(home), "LOLAMA_CONFIG": str(home / "config.toml")}
    assert run("config", "set", "quantize", "4", env=env).code == 0
    assert (home / "config.toml").read_text() == "quantize = 4\n"
    assert "to int4" in run("generate", *GREEDY, "a", env=env).err
    assert "to int8" in run("generate", *GREEDY, "--quantize", "a", env=env).err
    off = run("-v", "generate", *GREEDY, "a", env=env | {"LOLAMA_QUANTIZE": "no"})
    assert "quantizing" not in off.err and " for 42 linears" not in off.err
    run("config", "set", "quantize", "5", env=env).refused(2, "expected true or false or 4 or 8")


def test_bench_and_eval_say_how_many_bits(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little girl who had a red ball.")
    short = ("--prompt-tokens", "4", "--max-tokens", "2", "--repeats", "1", "--json")
    found = json.loads(run("bench", "-m", "demo", "--quantize", "4", *short).out)
    assert found["quantized"] is True and found["quantization"] == "int4"
    found = json.loads(run("eval", text, "-m", "demo", "--quantize", "4", "--json").out)
    assert found["bits"] == 4 and 0 < found["quality"]["quantized"]["mean_kl"] < 0.01
    assert "in int4" in run("eval", text, "-m", "demo", "--quantize", "4").out.decode()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["demo", "demo-vision"])
def test_memory_is_told_before_a_model_is_made(name: str, bits: int) -> None:
    files = names.resolve(name)
    told = memory.weight_bytes(files, "bfloat16", bits=bits)
    model = lolama.load_model(name, device="cpu", dtype="bfloat16", quantize=bits == 8 or 4)
    assert told == sum(weight.nbytes for weight in model.parameters())
