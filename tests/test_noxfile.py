"""Sessions of the noxfile install again what has changed, and nothing else; its tables leave nothing out."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"noxfile", "nox_sessions"}


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules that the noxfile puts together, with a stand-in for nox, which is not here."""
    monkeypatch.setitem(sys.modules, "nox", MagicMock())
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # the noxfile removes it
    importlib.import_module("noxfile")
    yield sys.modules["nox_sessions"]
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


@pytest.fixture
def environments(sessions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that installs, with one package in ``tmp_path``."""
    for name in ("CC", "LOLAMA_NO_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sessions.packages, "ROOT", tmp_path)
    native = tmp_path / "packages" / "lolama-quant" / "src" / "lolama_quant" / "native"
    native.mkdir(parents=True)
    for path in (native / "a.c", native / "lolama.so", native.parent / "__about__.py"):
        path.touch()
    for name in ("pyproject.toml", "README.md", "hatch_build.py"):
        (tmp_path / "packages" / "lolama-quant" / name).touch()
    return sessions.environments


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    return tmp_path / "environment" / "lib" / "python3" / "site-packages" / "a.dist-info"


@pytest.fixture
def installs(
    sessions: Any, environments: Any, tmp_path: Path, metadata: Path
) -> Callable[..., bool]:
    """Call `install`, and tell whether it ran an installer."""
    calls: list[tuple[str, ...]] = []

    def run_installer(*arguments: str, env: dict[str, str]) -> None:
        calls.append(arguments)
        metadata.mkdir(parents=True, exist_ok=True)
        os.utime(metadata, ns=(len(calls), len(calls)))

    def run(*requirements: str | Path, installer: Any = run_installer) -> bool:
        before = len(calls)
        environment = SimpleNamespace(location=str(tmp_path / "environment"))
        session = SimpleNamespace(
            venv_backend="virtualenv", virtualenv=environment, log=print, install=installer
        )
        editable = sessions.packages.editable(["lolama-quant"])
        environments.install(session, *editable, *requirements)
        return len(calls) > before

    return run


@pytest.mark.parametrize(
    "file",
    [
        "pyproject.toml",
        "README.md",
        "hatch_build.py",
        "src/lolama_quant/__about__.py",
        "src/lolama_quant/native/a.c",
        "src/lolama_quant/native/b.h",
    ],
)
def test_a_changed_file_is_installed(
    installs: Callable[..., bool], tmp_path: Path, file: str
) -> None:
    assert installs() and not installs()
    (tmp_path / "packages" / "lolama-quant" / file).write_text("changed")
    assert installs() and not installs()


def test_a_library_that_is_gone_is_made_again(
    installs: Callable[..., bool], tmp_path: Path
) -> None:
    assert installs() and not installs()
    (tmp_path / "packages/lolama-quant/src/lolama_quant/native/lolama.so").unlink()
    assert installs() and not installs()


def test_an_edited_module_is_linked_and_not_installed(
    installs: Callable[..., bool], tmp_path: Path
) -> None:
    assert installs()
    (tmp_path / "packages/lolama-quant/src/lolama_quant/report.py").write_text("changed")
    assert not installs()


def test_what_somebody_else_installed_is_replaced(
    installs: Callable[..., bool], metadata: Path
) -> None:
    assert installs() and not installs()
    os.utime(metadata, ns=(0, 0))
    assert installs() and not installs()
    metadata.with_name("b.dist-info").mkdir()
    assert installs() and not installs()


@pytest.mark.parametrize("name", ["CC", "LOLAMA_NO_NATIVE", "UV_TORCH_BACKEND", "PIP_INDEX_URL"])
def test_other_settings_are_used(
    installs: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert installs() and not installs()
    monkeypatch.setenv(name, "other")
    assert installs() and not installs()


def test_another_compiler_is_used(
    installs: Callable[..., bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.touch(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert installs() and not installs()
    os.utime(compiler, ns=(0, 0))
    assert installs() and not installs()


def test_another_requirement_is_installed(installs: Callable[..., bool]) -> None:
    assert installs("pytest") and not installs("pytest")
    assert installs("pytest>=9") and not installs("pytest>=9")


def test_a_copied_folder_is_always_installed(installs: Callable[..., bool], tmp_path: Path) -> None:
    assert installs(tmp_path) and installs(tmp_path)


def test_an_installer_that_is_kept_from_it_does_not_count(installs: Callable[..., bool]) -> None:
    assert not installs(installer=lambda *arguments, env: None)
    assert installs() and not installs()


def test_an_installation_that_failed_does_not_count(installs: Callable[..., bool]) -> None:
    def fails(*arguments: str, env: dict[str, str]) -> None:
        raise RuntimeError("no network")

    assert installs()
    with pytest.raises(RuntimeError):
        installs("pytest>=9", installer=fails)
    assert installs("pytest>=9") and not installs("pytest>=9")


def test_each_test_that_counts_its_cases_has_one_part_of_the_session_fuzz(sessions: Any) -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in (ROOT / "tests", *ROOT.glob("packages/*/tests"))
        for path in folder.rglob("test_*.py")
        if re.search(
            r'^\w+ = .*"LOLAMA_FUZZ_CASES"', path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    parts = [file for files in sessions.long_runs.FUZZ.values() for file in files]
    assert sorted(parts) == sorted(found)


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", ".github/workflows/nightly.yml"])
def test_every_part_of_the_session_fuzz_is_named(sessions: Any, file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.findall(r'"fuzz\(([\w-]+)\)"', text)
    assert [*dict.fromkeys(named)] == [*sessions.long_runs.FUZZ]
