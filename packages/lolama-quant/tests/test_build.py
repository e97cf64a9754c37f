"""The build hook: the native library is compiled where something that it is made of has changed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Notes that it was called, and writes what it is told to.
COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo "compiler $VERSION" && exit
echo called >> "$CALLS"
[ -e fails.c ] && echo "cannot compile" >&2 && exit 1
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def compile_library(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, Path], str]:
    """The function of hatch_build.py, with a compiler that notes its calls."""
    # The hook itself needs hatchling, which only whoever builds has.
    interface: Any = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = dict
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    path = Path(__file__).resolve().parents[1] / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    for name, value in (("CC", compiler), ("CALLS", calls), ("VERSION", "1")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("LOLAMA_NO_NATIVE", raising=False)
    found: Callable[[Path, Path], str] = module.compile_library
    return found


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "a.c").write_text("int a;")
    (folder / "a.h").write_text("int b;")
    return folder


def test_what_has_not_changed_is_not_compiled_again(
    compile_library: Callable[[Path, Path], str],
    sources: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compiled() -> bool:
        """Whether the compiler is called now."""
        calls.write_text("")
        assert compile_library(sources, sources / "lolama.so") == ""
        assert (sources / "lolama.so").read_text() == "library\n"
        return bool(calls.read_text())

    assert compiled()
    assert not compiled()
    (sources / "a.h").write_text("int c;")
    assert compiled()
    (sources / "b.c").write_text("")
    assert compiled()
    monkeypatch.setenv("VERSION", "2")
    assert compiled()
    assert not compiled()
    (sources / "lolama.so").unlink()
    assert compiled()


def test_a_library_that_could_not_be_compiled_does_not_count_as_made(
    compile_library: Callable[[Path, Path], str], sources: Path, calls: Path
) -> None:
    library = sources / "lolama.so"
    assert compile_library(sources, library) == ""
    (sources / "fails.c").touch()
    assert compile_library(sources, library) == "cannot compile"
    (sources / "fails.c").unlink()
    calls.write_text("")
    assert compile_library(sources, library) == ""
    assert calls.read_text()
