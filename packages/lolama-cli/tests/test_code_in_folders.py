"""Nothing in a model's folder is ever run, row 93 of docs/faults.md: not even from inside that folder.

The current directory holds a module for every name of the standard library, for packages that libraries try
to import, and a distribution that claims to bring parts of lolama. Each leaves its name behind if it is run.

`python -m` without `-P` is not tried: Python itself then imports from the current directory, before lolama
begins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from program import environment

from lolama_cli.chat import clipboard
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.protocols.errors import NotAvailableError

_OTHERS = (
    *(
        "sitecustomize",
        "usercustomize",
        "torch",
        "numpy",
        "yaml",
        "tokenizers",
        "sentencepiece",
        "google",
    ),
    *(
        "triton",
        "psutil",
        "httpx2",
        "huggingface_hub",
        "jinja2",
        "PIL",
        "typer",
        "platformdirs",
        "dotenv",
        "starlette",
        "uvicorn",
        "msgspec",
        "prometheus_client",
    ),
    *(
        "lolama",
        "lolama_hub",
        "lolama_quant",
        "lolama_serve",
        "lolama_vision",
        "evil",
        "model",
        "config",
        "tokenizer",
    ),
)
_GROUPS = ("families", "sources", "quantizers", "linear_kernels", "decoder_kernels")


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that says what was run."""
    return tmp_path / "RAN"


@pytest.fixture
def hostile(published: Path, tmp_path: Path, ran: Path) -> Path:
    """A model with pickled weights, in a folder full of code."""
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    weights = SafetensorsFile(folder / "model.safetensors")
    state = {key: weights.read(key).clone() for key in weights.header()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for name in {*sys.stdlib_module_names, *_OTHERS}:
        code = f"open({str(ran)!r}, 'a').write('{name} ')\n"
        (folder / f"{name}.py").write_text(code)
    distribution = folder / "evil-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    points = [f"[lolama.{group}]\nevil = evil:Provider\n" for group in _GROUPS]
    (distribution / "entry_points.txt").write_text("\n".join(points))
    for program in ("wl-copy", "xclip", "xsel", "pbcopy", "uname", "gcc", "ps"):
        (folder / program).write_text(f"#!/bin/sh\necho {program} >> {ran}\n")
        (folder / program).chmod(0o755)
    return folder


_PROGRAM = Path(sys.executable).parent / "lolama"
_START = (str(_PROGRAM),) if _PROGRAM.exists() else (sys.executable, "-P", "-m", "lolama_cli")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-m", ".", "--max-tokens", "3", "z"),  # converts in a child
        ("convert", ".", "../copy"),
        ("quantize", "-m", ".", "-o", "../small"),
        ("chat", "-m", ".", "--max-tokens", "3"),
        ("doctor",),
        ("models",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_row_93_no_command_runs_code_of_the_current_directory(
    hostile: Path, ran: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [*_START, *arguments],
        cwd=hostile,
        env=environment({"LOLAMA_HOME": str(tmp_path / "home"), "PATH": f".:{os.environ['PATH']}"}),
        input=b"z\n",
        capture_output=True,
        timeout=300,
    )
    assert not ran.exists(), ran.read_text()
    assert done.returncode == 0, done.stderr


def test_row_93_lolama_core_alone_runs_no_code_either(base: Path, hostile: Path, ran: Path) -> None:
    command = [sys.executable, "-P", "-m", "lolama_core", "-m", str(base), "--max-tokens", "3", "z"]
    done = subprocess.run(command, cwd=hostile, env=environment(), capture_output=True, timeout=300)
    assert not ran.exists(), ran.read_text()
    assert (done.returncode, done.stdout) == (0, b"abc\n")


def test_row_93_the_clipboard_is_no_program_of_the_current_directory(
    hostile: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", os.path.relpath(hostile)]))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(NotAvailableError, match="no clipboard program"):
        clipboard.copy("text", terminal=False)
    assert not ran.exists()
