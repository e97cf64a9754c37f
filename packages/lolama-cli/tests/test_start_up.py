"""What a start costs: which modules it imports, and how long it takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import LIMIT
from program import environment, run
from served import serving

from lolama_cli import model_choice
from lolama_core.protocols.errors import LolamaError
from lolama_core.testing.promises import Promises

FIRST_TOKEN = ("generate", "-m", "demo", "--max-tokens", "1", "Once upon a time")
TELLING = ("-v",)
"""The interpreter tells what it imports: `-X importtime` leaves out what `importlib.import_module` does."""
# They take long to import; neither a first token of a text model nor `import torch` needs them.
HEAVY = {
    *("PIL", "httpx2", "huggingface_hub", "prompt_toolkit", "rich", "sentencepiece"),
    *("sympy", "transformers", "torch._dynamo", "torch._inductor"),
}


# None of them is needed to read a command line, or to ask a server.
UNNEEDED = {
    *HEAVY,
    *(
        "torch",
        "tokenizers",
        "jinja2",
        "pydantic",
        "asyncio",
        "concurrent.futures",
        "multiprocessing",
    ),
    *("importlib.metadata", "importlib.resources", "logging", "psutil", "ctypes"),
    "lolama_core.protocols.decoder_kernel",
}


def imported(err: str) -> set[str]:
    """Modules and packages named on standard error by an interpreter that tells what it imports."""
    names = set(re.findall(r"^import '?([\w.]+)'? #", err, re.MULTILINE))
    return names | {name.partition(".")[0] for name in names}


def test_help_needs_no_torch() -> None:
    outcome = run("--help", python=TELLING)
    assert outcome.code == 0
    assert "lolama_cli" in imported(outcome.err)
    assert not imported(outcome.err) & (HEAVY | {"torch", "tokenizers", "jinja2"})


def test_bad_options_are_answered_before_torch_is_imported() -> None:
    outcome = run("generate", "--top-p", "2", "z", python=TELLING)
    assert outcome.code == 2
    assert "lolama_cli" in imported(outcome.err)
    assert not imported(outcome.err) & (HEAVY | {"torch", "tokenizers", "jinja2"})


def test_a_first_token_needs_little_but_torch() -> None:
    outcome = run(*FIRST_TOKEN, python=TELLING)
    assert outcome.code == 0
    assert {"torch", "lolama_core.model.llama"} <= imported(outcome.err)
    assert not imported(outcome.err) & HEAVY


def test_help_imports_no_command() -> None:
    outcome = run("--help", python=TELLING)
    assert outcome.code == 0
    names = imported(outcome.err)
    assert "lolama_cli.command_group" in names
    assert names & UNNEEDED == set()
    assert not {name for name in names if name.startswith(("lolama_cli.commands.", "http"))}


def test_asking_a_server_imports_little() -> None:
    with serving("-m", "demo") as server:
        outcome = run("generate", "-m", "demo", "--server", server, "-n", "1", "z", python=TELLING)
    assert outcome.code == 0, outcome.err
    names = imported(outcome.err)
    assert "lolama_cli.server_run" in names
    assert names & UNNEEDED == set()
    assert {name for name in names if name.startswith("lolama_cli.commands.")} == {
        "lolama_cli.commands.generate"
    }
    assert "lolama_cli.batch.command" not in names


@pytest.mark.promise
@pytest.mark.parametrize(
    ("code", "arguments"), [(0, ("--help",)), (2, ("generate", "--top-p", "2", "z"))]
)
def test_help_and_bad_options_are_answered_at_once(
    code: int, arguments: tuple[str, ...], promises: Promises
) -> None:
    what = f"lolama {' '.join(arguments)}, the best of five"
    promises.best_of(5, 0.3, what, lambda: run(*arguments))
    assert run(*arguments).code == code


# Its first line on standard error: processor seconds until torch was there.
PROGRAM = """
import runpy, sys, time
import torch
print(time.process_time(), file=sys.stderr, flush=True)
runpy.run_module("lolama_cli", run_name="__main__", alter_sys=True)
"""


def cost() -> float:
    """Processor seconds of a first token beyond importing torch, both of one run: processors change their
    speed, and wall time would count other programs as well.
    """
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *FIRST_TOKEN],
        capture_output=True,
        text=True,
        env=environment(),
    )
    after = os.times()
    assert done.returncode == 0 and done.stdout, done.stderr
    whole = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return whole - float(done.stderr.splitlines()[0])


@pytest.mark.promise
def test_the_first_token_costs_little_beside_torch(promises: Promises) -> None:
    least = min(cost() for _ in range(5))
    promises.hold(0.5, "processor time of a first token beyond importing torch", least)


# Runs every command line it is given in a fork of its own, and tells its exit code, what it wrote to standard
# error, and whether torch was imported.
FORKS = """
import contextlib, gc, json, os, sys, tempfile
import huggingface_hub.file_download, importlib.metadata, PIL.Image  # which many of them need
import lolama_cli.app, lolama.wiring, lolama.devices
from lolama_cli import __main__ as program
from lolama_cli.errors import Settings
from lolama_core.protocols.errors import UsageError
with contextlib.suppress(UsageError):  # typer imports more once it parses
    lolama_cli.app.run(["generate", "--top-p", "2", "z"], Settings())
gc.freeze()
assert "torch" not in sys.modules
for line in sys.stdin:
    told, written = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        def end(code, leave=os._exit):
            os.pwrite(told.fileno(), json.dumps([code, "torch" in sys.modules]).encode(), 0)
            leave(0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(written.fileno(), 2)
        sys.stdin = open(0, closefd=False)
        sys.argv = ["lolama", *json.loads(line)]
        os._exit = end
        program.main()
    os.waitpid(child, 0)
    written.seek(0)
    print(json.dumps([*json.loads(told.read()), written.read().decode()]), flush=True)
"""


class Forks:
    """Runs command lines in processes that have not imported torch."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def run(self, *arguments: str | Path) -> tuple[int, bool, str]:
        """Exit code, whether torch was imported, and standard error."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([str(one) for one in arguments]) + "\n")
        self._process.stdin.flush()
        code, has_torch, err = json.loads(self._process.stdout.readline())
        return code, has_torch, err

    def stop(self) -> None:
        """End the host."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(LIMIT)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    host = Forks()
    yield host
    host.stop()


def edited(folder: Path, copy: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a model's folder with one file changed."""
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    return copy


def with_key(key: str, value: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), key: value}).encode()


@pytest.mark.parametrize(
    "command",
    [
        *("info demo", "info demo --json", "info demo-vision", "info tinyllama", "models"),
        *("models --json", "doctor", "doctor --json", "config show", "gc", "--version"),
        *("generate --help", "chat --help", "rm --help"),
    ],
)
def test_row_180_what_needs_no_model_imports_no_torch(forks: Forks, command: str) -> None:
    code, has_torch, err = forks.run(*command.split())
    assert (code, has_torch) == (0, False), err


def test_row_180_info_of_a_folder_imports_no_torch(
    forks: Forks, base: Path, published: Path
) -> None:
    for folder in (base, published):
        assert forks.run("info", folder)[:2] == (0, False)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (2, "generate -m demo --top-p 2 x"),
        (2, "generate -m demo --device banana x"),
        (2, "generate -m demo --device mps x"),
        (2, "generate -m demo --image https://example.com/a.png x"),
        (2, "generate -m demo --logprobs 3 x"),
        (2, "generate -m demo --image no-such.png x"),
        (3, "generate -m demo-vision --image no-such.png x"),
        (3, "generate -m demo-vision --image /dev/null x"),
        (2, "generate -m demo --template no-such.jinja x"),
        (2, "generate -m no-such-model x"),
        (2, "generate -m ./no-such-folder x"),
        (2, "generate -m /dev/null x"),
        (4, "generate -m owner/absent x"),
        (2, "generate -m demo --batch no-such.jsonl"),
        (2, "generate -m demo --batch - --batch-size 0"),
        (2, "chat -m ./no-such-folder"),
        (2, "chat -m demo --top-p 2"),
        (2, "chat -m demo --load no-such.json"),
        (2, "bench -m demo --repeats 0"),
        (2, "bench -m demo --prompt-tokens 100000"),
        (2, "bench -m ./no-such-folder"),
        (2, "eval -m demo no-such.txt"),
        (2, "eval -m ./no-such-folder"),
        (2, "quantize -m ./no-such-folder"),
        (2, "quantize -m demo -o /"),
        (2, "convert ./no-such-folder copy"),
        (2, "convert demo /"),
        (2, "info no-such-model"),
        (2, "rm ./no-such-folder"),
        (2, "pull demo"),
        (2, "config set top-p 2"),
        (2, "no-such-command"),
    ],
)
def test_row_181_refusals_import_no_torch(forks: Forks, code: int, command: str) -> None:
    assert forks.run(*command.split())[:2] == (code, False), forks.run(*command.split())[2]


@pytest.mark.parametrize("command", ["generate", "chat", "bench", "eval", "quantize", "info"])
@pytest.mark.parametrize(
    ("layout", "name", "change"),
    [
        ("published", "config.json", lambda content: content[:-20]),
        ("published", "config.json", with_key("model_type", "bert")),
        ("published", "config.json", with_key("hidden_size", -1)),
        ("published", "tokenizer.json", lambda content: content[:-20]),
        ("published", "model.safetensors", lambda content: b"\xff" * 8 + content[8:]),
        ("published", "model.safetensors", lambda content: content[:-20]),
        ("base", "config.json", lambda content: content[:-20]),
        ("base", "model.safetensors", lambda content: b"\xff" * 8 + content[8:]),
    ],
)
def test_row_182_files_that_cannot_be_used_import_no_torch(
    forks: Forks,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    command: str,
    layout: str,
    name: str,
    change: Callable[[bytes], bytes],
) -> None:
    folder = edited(request.getfixturevalue(layout), tmp_path / "model", name, change)
    named = [folder] if command == "info" else ["-m", folder]
    code, has_torch, err = forks.run(command, *named, *(["x"] if command == "generate" else []))
    assert (code, has_torch) == (3, False), err


def test_row_210_torch_is_read_from_the_disk_only_once_the_files_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    read: list[str] = []
    monkeypatch.setattr(model_choice, "load_libraries_ahead", lambda: read.append("torch"))
    damaged = edited(base, tmp_path / "model", "config.json", lambda content: content[:-20])
    for name in ("no-such-model", str(tmp_path / "no-such-folder"), str(damaged)):
        with pytest.raises(LolamaError):
            model_choice.ModelChoice(name=name).open()
    with pytest.raises(LolamaError):
        model_choice.ModelChoice(name="demo", device="banana").open()
    assert not read
    model_choice.ModelChoice(name="demo").open()
    assert read == ["torch"]


def test_row_183_a_prompt_that_is_too_long_imports_no_torch(forks: Forks, short: Path) -> None:
    code, has_torch, err = forks.run("generate", "-m", short, "a" * 50)
    assert (code, has_torch) == (2, False) and "16" in err


@pytest.mark.parametrize("command", ["generate", "chat", "bench", "eval", "quantize"])
def test_row_182_a_family_that_nothing_builds_imports_no_torch(
    forks: Forks, tmp_path: Path, base: Path, command: str
) -> None:
    change = with_key("family", "none-such")
    folder = edited(base, tmp_path / "model", "config.json", change)
    more = ["x"] if command == "generate" else []
    code, has_torch, err = forks.run(command, "-m", folder, *more)
    assert (code, has_torch) == (2, False) and "none-such" in err
