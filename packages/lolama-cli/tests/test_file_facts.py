"""What is remembered about files: found again, and forgotten as soon as a file is another one."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

import lolama_core.files.checkpoint_reader
from lolama import file_facts, names, wiring
from lolama_core.protocols.errors import ModelError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tensors that are looked through."""
    names: list[str] = []
    look = lolama_core.files.checkpoint_reader.check_finite

    def told(name: str, *rest: object) -> None:
        names.append(name)
        look(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("lolama_core.files.checkpoint_reader.check_finite", told)
    return names


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is large enough."""
    monkeypatch.setattr(file_facts, "_WORTH_A_NOTE", 0)


@pytest.mark.usefixtures("large")
def test_row_44_weights_are_looked_through_once_a_file(
    base: Path, tmp_path: Path, home: Path, looks: list[str]
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    files = names.resolve(folder)
    wiring.load_files(files)
    assert sorted(looks) == sorted(files.tensors)
    assert len(list((home / "finite").iterdir())) == 1
    looks.clear()
    assert wiring.load_model(folder).generation_defaults.eos_ids
    wiring.load_model(folder)
    assert looks == []
    # The same size and, as far as a file can say that of itself, the same time; with a NaN in it.
    weights = folder / "model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(struct.pack("<f", float("nan")))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):  # what was refused is not remembered as good
        with pytest.raises(ModelError, match="holds NaN or Inf"):
            wiring.load_model(folder)


@pytest.mark.usefixtures("large")
def test_a_file_that_changes_while_it_is_loaded_is_not_remembered(
    base: Path, tmp_path: Path, home: Path
) -> None:
    files = names.resolve(shutil.copytree(base, tmp_path / "model"))
    with file_facts.looked_through(files) as found:
        assert not found.finite
        os.utime(next(iter(files.tensors.values())).path)
    with file_facts.looked_through(files) as found:
        assert not found.finite
    with file_facts.looked_through(files) as found:
        assert found.finite


def test_a_small_model_needs_no_store(base: Path, home: Path, looks: list[str]) -> None:
    for _ in range(2):
        looks.clear()
        wiring.load_model(base)
        assert looks
    assert not home.exists()


@pytest.mark.usefixtures("large")
def test_a_store_that_cannot_be_made_stops_no_load(base: Path, home: Path) -> None:
    home.write_text("a file")
    wiring.load_model(base)


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a")
    first = file_facts.file_digest(path)
    (memory,) = (home / "hashes").iterdir()
    assert memory.read_text() == first
    memory.write_text("0" * 64)
    assert file_facts.file_digest(path) == "0" * 64
    path.write_bytes(b"bb")
    assert file_facts.file_digest(path) not in (first, "0" * 64)
