from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import numpy
import pytest

from lolama_core.files import gguf_parts
from lolama_core.files.gguf_parts import read_gguf_parts
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.gguf_file import (
    F32,
    TEXT,
    UINT16,
    gguf_bytes,
    key,
    split_keys,
    tensor,
    text,
)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_gguf_parts(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def part(folder: Path, number: int, count: int, *names: str, tensors: int | None = None) -> Path:
    """A part of a model with these tensors; ``number`` counts from 1."""
    path = folder / f"m-{number:05}-of-{count:05}.gguf"
    total = len(names) * count if tensors is None else tensors
    keys = split_keys(number - 1, count, total)
    places = [tensor(name, F32, (8,), 32 * place) for place, name in enumerate(names)]
    path.write_bytes(gguf_bytes(keys, places, bytes(32 * len(names))))
    return path


@pytest.mark.parametrize("small_first", [False, True])
def test_reads_the_parts_that_gguf_writes(tmp_path: Path, small_first: bool) -> None:
    writer = gguf.GGUFWriter(
        tmp_path / "m.gguf", "llama", split_max_tensors=2, small_first_shard=small_first
    )
    for number in range(5):
        writer.add_tensor(f"t{number}", numpy.full((2, 3), number, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 3 + small_first
    for path in paths:  # whichever is named
        parts = read_gguf_parts(path)
        assert [one.path for one in parts] == paths
        assert [name for one in parts for name in one.tensors] == [f"t{n}" for n in range(5)]
        assert parts[0].metadata["general.architecture"] == "llama"


@pytest.mark.parametrize("name", ["m.gguf", "m-00001-of-00001.gguf", "m-1-of-2.gguf"])
def test_a_model_in_one_file_has_one_part(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for keys in ([key("a", TEXT, text("b"))], split_keys(0, 1, 0)):
        path.write_bytes(gguf_bytes(keys))
        assert [one.path for one in read_gguf_parts(path)] == [path]


def test_row_437_missing_parts_are_named(tmp_path: Path) -> None:
    path = part(tmp_path, 2, 9, "a")
    said = refused(path)
    assert "'m-00001-of-00009.gguf', 'm-00003-of-00009.gguf', 'm-00004-of-00009.gguf'" in said
    assert "and 5 more are missing" in said
    for number in (1, *range(3, 9)):
        part(tmp_path, number, 9, str(number))
    assert "'m-00009-of-00009.gguf' is missing" in refused(path)
    os.symlink(tmp_path / "nowhere", tmp_path / "m-00009-of-00009.gguf")
    assert "m-00009-of-00009.gguf: does not exist" in refused(path)


def test_row_437_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = part(tmp_path, 1, 2, "a"), part(tmp_path, 2, 2, "a")
    assert "holds the tensor 'a', and so does m-00001-of-00002.gguf" in refused(first)
    part(tmp_path, 2, 2, "b", "c", tensors=2)
    assert "of a model of 2 tensors; its parts hold 3" in refused(first)
    second.write_bytes(first.read_bytes())
    assert "called part 2 of 2, and says split.no 0 of 2" in refused(first)
    second.write_bytes(gguf_bytes(split_keys(1, 3, 2)))
    assert "called part 2 of 2, and says split.no 1 of 3" in refused(first)
    second.write_bytes(gguf_bytes())
    assert "does not say so itself" in refused(first)
    second.write_bytes(first.read_bytes()[:-1])
    assert "is cut short" in refused(first)


def test_row_437_a_part_under_another_name(tmp_path: Path) -> None:
    path = part(tmp_path, 1, 2, "a").rename(tmp_path / "first.gguf")
    assert "one of 2 parts of a model, and its name does not say which" in refused(path)


@pytest.mark.parametrize("name", ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf"])
def test_row_437_names_of_impossible_parts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gguf_bytes())
    assert "is called part" in refused(tmp_path / name)


def test_row_431_numbers_of_parts_and_their_headers_have_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m-00001-of-99999.gguf"
    path.write_bytes(gguf_bytes())
    assert "at most 1,000 are read" in refused(path)
    first = part(tmp_path, 1, 3, "a")
    for number in (2, 3):
        part(tmp_path, number, 3, str(number))
    assert len(read_gguf_parts(first)) == 3
    monkeypatch.setattr(gguf_parts, "MAX_TENSORS", 2)
    assert "more than 2 tensors" in refused(first)
    monkeypatch.undo()
    monkeypatch.setattr(gguf_parts, "MAX_LATER_BYTES", 300)
    assert "has a header of more than" in refused(first)


def test_row_437_a_part_that_says_odd_things_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00001.gguf"
    path.write_bytes(gguf_bytes([key("split.no", TEXT, text("x\n" * 500))]))
    assert len(refused(path)) < len(str(path)) + 300
    path.write_bytes(gguf_bytes([key("split.no", 7, b"\0")]))
    assert "split.no False" in refused(path)
    path.write_bytes(gguf_bytes([key("split.count", UINT16, struct.pack("<H", 3))]))
    assert "says split.no 0 of 3" in refused(path)
