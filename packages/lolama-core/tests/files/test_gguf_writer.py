"""Writing GGUF: lolama's reader and the gguf library read the same; all or nothing is there."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor

from lolama_core.files.gguf_header import read_gguf_header
from lolama_core.files.gguf_writer import write_gguf
from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.errors import ResourceError, UsageError


@dataclass(frozen=True)
class Header:
    dtype: str
    shape: tuple[int, ...]


METADATA: dict[str, GGUFValue] = {
    "general.architecture": "llama",
    "a.text": "Größe ▁",
    "a.number": 2**32 - 1,
    "a.float": 0.5,
    "a.yes": True,
    "a.no": False,
    "a.texts": ["", "a", "▁b"],
    "a.numbers": [1, -2, 3],
    "a.floats": [0.5, -1.0],
    "a.booleans": [True, False],
    "a.none": [],
}
HEADERS = {
    "odd": Header("F32", (3,)),
    "half": Header("F16", (2, 5)),
    "brain": Header("BF16", (4, 2, 3)),
    "blocks": Header("Q8_0", (3, 64)),
}


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "odd": torch.randn(3),
        "half": torch.randn(2, 5).half(),
        "brain": torch.randn(4, 2, 3).bfloat16(),
        "blocks": torch.randint(0, 256, (3, 68), dtype=torch.uint8),
    }


def parts() -> Iterator[tuple[str, int, Tensor]]:
    """All rows, the last ones first."""
    for name, tensor in reversed(tensors().items()):
        rows = tensor.reshape(-1, tensor.shape[-1])
        for number in reversed(range(len(rows))):
            yield name, number, rows[number : number + 1]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, METADATA, HEADERS, parts())
    header = read_gguf_header(path)
    assert (header.version, dict(header.metadata)) == (3, METADATA)
    assert [*header.metadata] == [*METADATA]
    for name, expected in tensors().items():
        info = header.tensors[name]
        assert (info.dtype, info.shape) == (HEADERS[name].dtype, HEADERS[name].shape)
        assert torch.equal(TensorFile(header).read(name), expected)
    assert [one.name for one in tmp_path.iterdir()] == ["a.gguf"]


def test_the_gguf_library_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, METADATA, HEADERS, parts())
    reader: Any = gguf.GGUFReader(path)
    found = {key: field.contents() for key, field in reader.fields.items() if key in METADATA}
    assert found == METADATA
    assert reader.fields["a.number"].types == [gguf.GGUFValueType.UINT32]
    assert reader.fields["a.numbers"].types[-1] == gguf.GGUFValueType.INT32
    expected = tensors()
    assert {one.name: one.tensor_type.name for one in reader.tensors} == {
        name: one.dtype for name, one in HEADERS.items()
    }
    for one in reader.tensors:
        assert one.data.tobytes() == expected[one.name].view(torch.uint8).numpy().tobytes()


def test_a_model_without_tensors(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {"general.architecture": "llama"}, {}, [])
    assert read_gguf_header(tmp_path / "a.gguf").tensors == {}


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_gguf(path, METADATA, HEADERS, parts())
    assert path.read_text() == "mine"
    write_gguf(path, METADATA, HEADERS, parts(), replace=True)
    assert read_gguf_header(path).version == 3
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_gguf(tmp_path / "folder", METADATA, HEADERS, parts(), replace=True)
    with pytest.raises(UsageError, match="does not exist; create it first"):
        write_gguf(tmp_path / "no" / "a.gguf", METADATA, HEADERS, parts())
    with pytest.raises(UsageError, match="is no possible name"):
        write_gguf(tmp_path / "a\0b", METADATA, HEADERS, parts())


def test_row_410_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(UsageError, match="is not a regular file; choose another name"):
        write_gguf(tmp_path / "pipe.gguf", METADATA, HEADERS, parts(), replace=True)
    assert (tmp_path / "pipe.gguf").is_fifo()


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, int, Tensor]]:
        yield next(parts())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "a.gguf", METADATA, HEADERS, broken())
    assert list(tmp_path.iterdir()) == []


def test_parts_that_are_missing_are_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="bytes of tensors are missing"):
        write_gguf(tmp_path / "a.gguf", METADATA, HEADERS, list(parts())[1:])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"a\.gguf: cannot be written: No space left on dev"):
        write_gguf(tmp_path / "a.gguf", METADATA, HEADERS, parts())
    assert list(tmp_path.iterdir()) == []


def test_the_first_key_is_where_a_look_at_the_first_bytes_finds_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", METADATA, HEADERS, parts())
    head = (tmp_path / "a.gguf").read_bytes()[:64]
    assert head[24:52] == struct.pack("<Q", 20) + b"general.architecture"
