"""Which C compiler Triton would start, and that none of a model's folder is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lolama_quant.triton import compiler


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, where Triton is thought to be installed and no compiler is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(compiler, "find_spec", lambda name: object())
    compiler._missing.cache_clear()
    yield tmp_path
    compiler._missing.cache_clear()


def program(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_a_compiler_in_path_is_used(folder: Path) -> None:
    assert compiler.describe_triton() == "Triton finds no C compiler"
    program(folder / "bin" / "gcc")
    compiler._missing.cache_clear()
    assert compiler.has_triton()


@pytest.mark.parametrize("entry", [".", ""])
def test_row_93_no_compiler_of_the_current_folder_is_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    program(folder / "gcc")
    monkeypatch.setenv("PATH", f"{entry}{os.pathsep}{folder / 'bin'}")
    assert not compiler.has_triton()
    assert "gcc of the current folder: take it out of PATH" in compiler.describe_triton()
    monkeypatch.setenv("CC", "gcc")  # what somebody sets is what he wants
    compiler._missing.cache_clear()
    assert compiler.has_triton()
