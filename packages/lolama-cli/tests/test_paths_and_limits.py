"""Paths that no file can have, and limits of the system: rows 120 and 121 of docs/faults.md."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from program import COMMAND, environment
from warm_program import run

from lolama import load_model, load_tokenizer
from lolama_cli import address_space
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError

LONG = "a" * 5000
NAMES = {
    "long": LONG,
    "long part": "/tmp/" + "b" * 300,
    "long folder": "/tmp/" + "b" * 300 + "/x",
    "no such user": "~nobody-at-all/x",
    "below a file": "/etc/passwd/x",
}
GENERATE = ("generate", "-m", "demo", "--max-tokens", "1", "--no-stdin")
OPTIONS: dict[str, tuple[str, ...]] = {
    "--model": ("generate", "--max-tokens", "1", "z", "-m"),
    "--template": (*GENERATE, "z", "--template"),
    "--image": ("generate", "-m", "demo-vision", "--max-tokens", "1", "z", "--image"),
    "--batch": (*GENERATE, "--batch"),
    "--output": (*GENERATE, "--batch", __file__, "-o"),
    "info": ("info",),
    "convert": ("convert", "demo"),
    "quantize -o": ("quantize", "-m", "demo", "-o"),
    "eval": ("eval", "-m", "demo"),
    "chat --load": ("chat", "-m", "demo", "--load"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("option", OPTIONS)
def test_row_120_paths_of_options(option: str, name: str) -> None:
    outcome = run(*OPTIONS[option], name, stdin=b"")
    assert outcome.code == (3 if option == "--image" else 2), outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert "bug" not in outcome.err


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize(
    ("variable", "arguments"),
    [
        *(("LOLAMA_HOME", command) for command in (("models",), ("gc",), ("rm", "tinyllama"))),
        ("LOLAMA_HOME", ("generate", "-m", "demo", "--quantize", "--max-tokens", "1", "z")),
        *(("LOLAMA_CONFIG", command) for command in (("config", "set", "model", "demo"), GENERATE)),
        *((variable, ("models",)) for variable in ("HF_HOME", "HF_HUB_CACHE", "XDG_CONFIG_HOME")),
        *((variable, ("models",)) for variable in ("XDG_CACHE_HOME", "HOME")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_row_120_paths_of_the_environment(
    variable: str, arguments: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    outcome = run(*arguments, env={variable: name}, folder=tmp_path)
    assert outcome.code in (0, 2, 6), outcome.err
    assert "bug" not in outcome.err and outcome.err.count("\n") <= 1


@pytest.mark.parametrize("name", [*NAMES.values(), "a\0b"], ids=[*NAMES, "NUL"])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_row_120_paths_in_python(load: Callable[[str], object], name: str) -> None:
    for path in (name, f"./{name}"):
        with pytest.raises(LolamaError):
            load(path)


def limited(number: int, limit: int) -> subprocess.CompletedProcess[str]:
    """A short generation under one limit of the system."""
    return subprocess.run(
        [*COMMAND, *GENERATE, "z"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(number, (limit, limit)),
    )


@pytest.mark.parametrize("limit", [8, 10, 16, 24, 32])
def test_row_121_few_open_files(limit: int) -> None:
    done = limited(resource.RLIMIT_NOFILE, limit)
    assert done.returncode in (0, 6), done.stderr
    if done.returncode:
        assert "as many files open as it may; raise the limit" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is held on Linux")
@pytest.mark.parametrize("kilobytes", [300_000, 500_000, 560_000, 614_400, 700_000, 800_000])
def test_row_121_little_address_space(kilobytes: int) -> None:
    done = limited(resource.RLIMIT_AS, kilobytes * 1024)
    assert done.returncode in (0, 6), done.stderr
    if done.returncode:
        assert done.stderr.count("\n") == 1 and "raise the limit" in done.stderr


def test_row_121_what_torch_takes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, resource.RLIM_INFINITY))
    with (tmp_path / "libtorch_cpu.so").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(
        ResourceError, match=r"torch: takes 2,176 MiB of address space, and .* left"
    ):
        address_space.check(tmp_path)


def test_row_120_a_user_who_is_not_here() -> None:
    from lolama.files import expanded

    assert expanded("~") == Path.home()
    with pytest.raises(UsageError, match="~nobody-at-all/x: begins with a user who is not here"):
        expanded("~nobody-at-all/x")
