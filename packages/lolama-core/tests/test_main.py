"""``python -m lolama_core`` as a program: what it writes where, and its exit codes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from lolama_core import Llama, LlamaConfig, TextGenerator, Tokenizer, load, write_checkpoint
from lolama_core.__main__ import main
from lolama_core.protocols.types import FORMAT_NAME, FORMAT_VERSION

Main: TypeAlias = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, byte_level_json: str) -> Path:
    """A random model that writes nonsense until its context of 48 positions is full."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": Tokenizer(byte_level_json).vocab_size,
        "d_model": 16,
        "num_heads": 2,
        "num_layers": 1,
        "hidden_dim": 32,
        "max_seq_len": 48,
    }
    config = LlamaConfig(**sizes)
    directory = tmp_path_factory.mktemp("main") / "tiny"
    write_checkpoint(
        directory,
        {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "family": "llama",
            "model": config.to_json(),
            "dtype": "float32",
            "generation": {"eos_ids": [], "vocab_size": config.vocab_size},
            "tokenizer": {"bos_token": "<|bos|>", "eos_token": None},
        },
        Llama(config).state_dict().items(),
        tokenizer_json=byte_level_json,
    )
    return directory


# Where it is set, nothing is ever left in a buffer, and half of what may go wrong does not.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "lolama_core", *arguments],
        **{"capture_output": True, "timeout": 60, "env": ENVIRONMENT, **settings},
    )


@pytest.fixture
def main_in_here(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Main:
    """The program without a process of its own: exit code, standard output, standard error."""

    def run_here(*arguments: str) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "argv", ["lolama_core", *arguments])
        code = main()
        return code, *capfdbinary.readouterr()

    return run_here


def test_it_writes_what_the_generator_says(checkpoint: Path) -> None:
    done = run("-m", str(checkpoint), "--seed", "3", "--max-tokens", "20", "hello")
    model, tokenizer = load(checkpoint)
    expected = TextGenerator(model, tokenizer).generate(
        tokenizer.encode("hello"),
        seed=3,
        max_new_tokens=20,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{expected.text}\n"


def test_a_full_context_is_noticed(checkpoint: Path, main_in_here: Main) -> None:
    code, out, err = main_in_here("-m", str(checkpoint), "--seed", "3", "hello")
    assert code == 0 and out
    assert b"context" in err and err.count(b"\n") == 1


def test_control_tokens_of_the_prompt_are_text(checkpoint: Path, main_in_here: Main) -> None:
    """The prompt comes from a user, who may type anything."""
    settings = ("--temperature", "0", "--max-tokens", "8")
    done = main_in_here("-m", str(checkpoint), *settings, "<|eos|>")
    model, tokenizer = load(checkpoint)
    ids = tokenizer.encode("<|eos|>", split_special_tokens=True)
    assert not any(map(tokenizer.is_special, ids[1:]))
    expected = TextGenerator(model, tokenizer).generate(ids, temperature=0.0, max_new_tokens=8)
    assert done == (0, f"{expected.text}\n".encode(), b"")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "/no/such/folder", "x"], 2, b"/no/such/folder"),
        (["--temperature", "nan", "x"], 2, b"--temperature"),
        (["--temperature", "-1", "x"], 2, b"--temperature"),
        (["--max-tokens", "-1", "x"], 2, b"--max-tokens"),
        (["--seed", "-1", "x"], 2, b"--seed"),
        (["--max-tokens", "9", "word " * 100], 2, b"48"),
        (["\udcff"], 2, b"Unicode"),
    ],
)
def test_what_cannot_be_honored(
    checkpoint: Path, main_in_here: Main, arguments: list[str], code: int, words: bytes
) -> None:
    """One line that names it, nothing on the standard output."""
    model = [] if "-m" in arguments else ["-m", str(checkpoint)]
    exit_code, out, err = main_in_here(*model, *arguments)
    assert (exit_code, out) == (code, b"")
    assert err.startswith(b"error: ") and err.count(b"\n") == 1
    assert words in err


def test_settings_are_checked_before_anything_is_loaded() -> None:
    """Not even torch is loaded."""
    code = (
        "import sys\n"
        "from lolama_core.__main__ import main\n"
        "sys.argv = ['lolama_core', '--temperature', 'nan', 'x']\n"
        "assert main() == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)


def test_a_damaged_model(tmp_path: Path, main_in_here: Main) -> None:
    assert main_in_here("-m", str(tmp_path), "x")[:2] == (3, b"")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    code, out, err = main_in_here("-m", str(tmp_path), "x")
    assert (code, out) == (3, b"")
    assert err.startswith(b"error: ") and err.count(b"\n") == 1


def test_a_reader_that_goes_away(checkpoint: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lolama_core", "-m", str(checkpoint), "--seed", "1", "hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_nowhere_to_write(checkpoint: Path) -> None:
    arguments = ("-m", str(checkpoint), "--max-tokens", "5", "hello")
    done = run(
        *arguments, preexec_fn=lambda: os.close(1), capture_output=False, stderr=subprocess.PIPE
    )
    assert done.returncode == 6
    assert b"standard output" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk(checkpoint: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = run(
            "-m",
            str(checkpoint),
            "hello",
            stdout=full,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert done.returncode == 6
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


def test_a_terminal_that_knows_only_ascii(checkpoint: Path) -> None:
    done = run(
        *("-m", str(checkpoint), "--seed", "1", "--max-tokens", "40", "é"),
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii() and b"?" in done.stdout


@pytest.mark.parametrize("limit", [8, 12])
def test_row_121_few_open_files(limit: int) -> None:
    done = run(
        *("--max-tokens", "1", "z"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    assert done.returncode in (0, 6), done.stderr
    assert b"Traceback" not in done.stderr


def test_row_121_a_library_that_finds_no_memory(
    main_in_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    import lolama_core

    monkeypatch.setattr(lolama_core, "load", refuse)
    code, out, err = main_in_here("z")
    assert (code, out) == (6, b"")
    assert err == (
        b"error: lolama_core: there is not enough memory for it; close other programs, "
        b"or raise the limit (`ulimit -v`)\n"
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--max-tokens", "-1"), ("--temperature", "nan"), ("--seed", "-5")]
)
def test_row_205_errors_name_the_option(option: str, value: str) -> None:
    done = run(f"{option}={value}", "z")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option}: {value} is not".encode())
