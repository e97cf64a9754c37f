"""Bad input and bad luck, against the installed program. The numbers are those of the project's list.

Every refusal is one line on standard error, nothing on standard output, and the exit code of its kind.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import program
import pytest
from known_model import SCRIPT
from patience import LIMIT
from program import COMMAND, ENDLESS, Outcome, environment, shell
from warm_program import on_terminal, run, start

from lolama_core.testing.promises import Promises

PIECES = "".join(SCRIPT).encode()


def generate(model: Path, *options: str, prompt: str = "z") -> Outcome:
    return run("generate", "-m", model, *options, prompt)


def test_row_57_logits_that_are_not_finite(overflowing: Path) -> None:
    for options in (("--temperature", "0"), ()):
        generate(overflowing, *options).refused(3, "non-finite logits", "step 0")


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "hot"])
def test_row_59_temperature_out_of_range(value: str) -> None:
    run("generate", "--temperature", value, "z").refused(2, "--temperature")


def test_row_59_the_smallest_temperature_is_greedy(base: Path) -> None:
    options = ("--temperature", "1e-45", "--max-tokens", "3")
    assert generate(base, *options, prompt="?").out == b"abc"


@pytest.mark.parametrize("value", ["-1", "nan", "2", "most"])
def test_row_60_top_p_out_of_range(value: str) -> None:
    run("generate", "--top-p", value, "z").refused(2, "--top-p")


def test_row_60_top_p_0_takes_the_best_and_top_k_may_exceed_the_vocabulary(base: Path) -> None:
    options = ("--top-p", "0", "--top-k", "1000000", "--max-tokens", "3")
    assert generate(base, *options, prompt="?").out == b"abc"
    outcome = generate(base, "--top-k", "1000000", "--max-tokens", "3")
    assert (outcome.code, outcome.out) == (0, b"abc")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_row_61_repetition_penalty_out_of_range(value: str) -> None:
    run("generate", "--repetition-penalty", value, "z").refused(2, "--repetition-penalty")


def test_row_62_max_tokens(base: Path) -> None:
    outcome = generate(base, "--max-tokens", "0")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")
    for value in ("-1", "1.5", "many", "9" * 5000):
        run("generate", "--max-tokens", value, "z").refused(2, "--max-tokens")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--top-k", "-1"),
        ("--min-p", "2"),
        ("--seed", "-1"),
        ("--stop", ""),
        ("--device", "abacus"),
        ("--dtype", "int8"),
        ("--image", "https://example.org/photo.jpg"),
    ],
)
def test_other_options_that_cannot_be_honored(option: str, value: str) -> None:
    run("generate", option, value, "z").refused(2, option)


def test_a_device_that_is_not_here(base: Path) -> None:
    generate(base, "--device", "cuda:99").refused(2, "--device", "not available here")


def test_row_63_a_prompt_longer_than_the_context(short: Path, tmp_path: Path) -> None:
    generate(short, prompt="abcdefghijklmnopqrst").refused(2, "21 tokens", "the 16")
    # Before the weights are read: with none that could be read, the answer is the same.
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (hollow / name).write_bytes((short / name).read_bytes())
    header = (short / "model.safetensors").read_bytes()
    (hollow / "model.safetensors").write_bytes(header.replace(b"\0\0\x80\x3f", b"\0\0\xc0\x7f"))
    generate(hollow, prompt="z").refused(3, "NaN")
    generate(hollow, prompt="z" * 20).refused(2, "21 tokens")


def test_row_64_the_context_fills_while_decoding(short: Path) -> None:
    outcome = generate(short)
    assert (outcome.code, outcome.out) == (0, b"abcdefghijklmn")
    assert outcome.err.startswith("note: ")
    assert "16" in outcome.err
    assert outcome.err.count("\n") == 1


class Running:
    """A run that goes on for ever."""

    def __init__(self, model: Path) -> None:
        self.process = start("generate", "-m", model, *ENDLESS)

    def read_first(self) -> None:
        assert self.process.stdout.read(1) == b"a"

    def signal(self, number: int) -> tuple[int, bytes]:
        self.process.send_signal(number)
        rest, err = self.process.communicate()
        assert rest.startswith(b"bc"[: len(rest)])
        return self.process.returncode, err


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_rows_22_and_65_signals_end_it_quietly(endless: Path, number: int, code: int) -> None:
    running = Running(endless)
    running.read_first()
    assert running.signal(number) == (code, b"")


@pytest.mark.promise
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_rows_22_and_65_signals_end_it_within_a_second(
    endless: Path, number: int, code: int, promises: Promises
) -> None:
    running = Running(endless)
    running.read_first()
    with promises.within(1, f"{signal.Signals(number).name} while it writes"):
        assert running.signal(number)[0] == code


STARTING = ("lolama_cli.app", "torch._C", "torch.nn", "lolama_core.model.llama")


def start_until(module: str, model: Path) -> subprocess.Popen[bytes]:
    """A run that has just imported a module, which the interpreter tells on standard error."""
    process = subprocess.Popen(
        (COMMAND[0], "-X", "importtime", *COMMAND[1:], "generate", "-m", model, *ENDLESS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.split(b"|")[-1].strip() == module.encode():
            break
    return process


@pytest.mark.parametrize("module", STARTING)
def test_row_22_ctrl_c_while_starting(endless: Path, module: str) -> None:
    process = start_until(module, endless)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert [line for line in rest.splitlines() if not line.startswith(b"import time:")] == []


@pytest.mark.promise
@pytest.mark.parametrize("module", STARTING)
def test_row_22_ctrl_c_while_starting_ends_it_within_a_second(
    endless: Path, module: str, promises: Promises
) -> None:
    process = start_until(module, endless)
    with promises.within(1, f"Ctrl-C after importing {module}"):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 130


def test_row_82_whoever_reads_goes_away(endless: Path) -> None:
    script = 'lolama generate -m "$@" | head -c 5; exit ${PIPESTATUS[0]}'
    outcome = shell(script, endless, *ENDLESS)
    assert (outcome.code, outcome.out, outcome.err) == (141, b"abcde", "")
    outcome = shell("lolama --help | true; exit ${PIPESTATUS[0]}")
    assert (outcome.code in (0, 141), outcome.err) == (True, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_row_83_the_disk_is_full(base: Path) -> None:
    for command in ('generate -m "$1" --max-tokens 9 z', "models", "--help", "--version"):
        shell(f"lolama {command} > /dev/full", base).refused(6, "standard output", "No space left")


def test_row_84_standard_output_is_closed() -> None:
    for command in ("generate z", "models", "--help"):
        shell(f"lolama {command} >&-").refused(2, "standard output", "closed")


def test_standard_error_is_closed(base: Path) -> None:
    outcome = shell('lolama -v generate -m "$1" --max-tokens 3 z 2>&-', base)
    assert (outcome.code, outcome.out) == (0, b"abc")
    assert shell("lolama generate --top-p 2 z 2>&-").code == 2


def test_row_85_standard_input_without_a_prompt() -> None:
    shell("lolama generate <&-").refused(2, "prompt", "closed")
    for text in (b"", b"\n"):
        program.run("generate", stdin=text).refused(2, "standard input", "empty")
    run("generate", "").refused(2, "prompt", "empty")
    run("generate", stdin=b"a\0b").refused(2, "standard input", "NUL", "offset 1")


def test_row_85_a_terminal_is_not_waited_for() -> None:
    ours, theirs = os.openpty()
    program.run("generate", stdin=theirs).refused(2, "prompt", "missing")
    os.close(ours)
    os.close(theirs)


def test_row_86_a_prompt_that_is_not_utf_8() -> None:
    run("generate", stdin=b"ab\xff").refused(2, "standard input", "0xff", "offset 2")
    program.run("generate", b"ab\xff", env={"PYTHONUTF8": "1"}).refused(2, "prompt", "UTF-8")


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_row_87_a_locale_without_the_characters(base: Path) -> None:
    arguments = ("generate", "-m", base, "é!")
    assert program.run(*arguments, env=ASCII).out == PIECES
    outcome = program.on_terminal(*arguments, env=ASCII)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(b"??\r\n")


def test_row_88_output_is_not_markup_and_row_89_piped_it_is_byte_exact(base: Path) -> None:
    outcome = generate(base, prompt="!")
    assert (outcome.code, outcome.out, outcome.err) == (0, PIECES, "")


def test_rows_88_and_89_on_a_terminal_control_characters_are_spelled_out(base: Path) -> None:
    outcome = on_terminal("generate", "-m", base, "!")
    assert outcome.code == 0
    shown = "[/foo][red]:smile:^[[31m^[]52;c;aGk=^G\\x9b2J^M^Hé✓\r\n"
    assert outcome.out.decode() == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-m", "\x1b]0;title\x07\x9b31m\u202e", "z"),
        ("generate", "-m", "folder\nerror: second line", "z"),
        ("generate", "--\x1b[31mred", "z"),
        ("\x1b[31mred",),
    ],
)
def test_row_89_nothing_of_what_was_typed_reaches_the_terminal_raw(
    arguments: tuple[str, ...],
) -> None:
    run(*arguments).refused(2)


def test_row_90_ten_megabytes_of_prompt(short: Path) -> None:
    outcome = program.run("generate", stdin=b"a" * 10_000_000, python=("-X", "importtime"))
    assert outcome.code == 2
    assert "error: prompt: has more than" in outcome.err
    assert "| torch" not in outcome.err  # which is what takes time
    # Less than that is measured against the model.
    run("generate", "-m", short, stdin=b"a" * 1_000_000).refused(2, "about 1,000,000", "the 16")


@pytest.mark.promise
def test_row_90_ten_megabytes_of_prompt_are_refused_within_a_second(promises: Promises) -> None:
    prompt = b"a" * 10_000_000
    promises.best_of(3, 1, "a prompt of 10 MB", lambda: program.run("generate", stdin=prompt))


def test_a_standard_input_without_end_is_not_waited_for() -> None:
    shell("yes | lolama generate").refused(2, "prompt")


def test_row_91_no_colors_or_questions_without_a_terminal(base: Path) -> None:
    for arguments in (("models",), ("--help",), ("generate", "-m", base, "--max-tokens", "3", "z")):
        outcome = program.run(*arguments, env={"FORCE_COLOR": "1", "PYTHONUTF8": "1"})
        assert outcome.code == 0
        assert b"\x1b" not in outcome.out
        assert outcome.err == ""
