"""The tensors of GGUF files; those of safetensors files are in test_safetensors_reader."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import numpy
import pytest
import torch

from lolama_core.files.gguf_header import read_gguf_header
from lolama_core.files.tensor_file import DTYPES, TensorFile
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.gguf_file import F32, Q8_0, UINT32, gguf_bytes, key, tensor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a tensor of every type, in one to three dimensions, as the library writes it."""
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for kind in gguf.GGMLQuantizationType:
        size = gguf.GGML_QUANT_SIZES[kind][1]
        for outer in ((), (3,), (2, 3)):
            rows = random.integers(0, 256, (*outer, 4 * size), numpy.uint8)
            writer.add_tensor(f"{kind.name}.{len(outer)}", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "m.gguf"


@pytest.mark.parametrize("way", ["read", "map"])
def test_tensors_of_gguf_are_those_that_gguf_reads(path: Path, way: str) -> None:
    file = TensorFile(read_gguf_header(path))
    for theirs in gguf.GGUFReader(path).tensors:
        mine, dtype = getattr(file, way)(theirs.name), theirs.tensor_type.name
        expected = torch.from_numpy(theirs.data.copy())
        assert mine.dtype == DTYPES.get(dtype, torch.uint8)
        if dtype != "BF16":  # which NumPy does not have
            assert mine.shape == expected.shape
        assert torch.equal(
            mine.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)
        )


def test_rows_of_blocks_are_rows_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    data = bytes(range(34)) * 4 + bytes(24)
    tensors = [
        tensor("blocks", Q8_0, (2, 64)),
        tensor("none", Q8_0, (0, 64), 160),
        tensor("empty", Q8_0, (3, 0), 160),
    ]
    path.write_bytes(gguf_bytes([], tensors, data))
    file = TensorFile(read_gguf_header(path))
    assert file.header()["blocks"].shape == (2, 64)
    blocks = file.read("blocks")
    assert (blocks.shape, blocks.dtype) == ((2, 68), torch.uint8)
    assert blocks[1, :34].tolist() == list(range(34))
    assert file.read("none").shape == (0, 68)
    assert file.map("empty").shape == (3, 0)


def test_numbers_at_an_odd_address_are_read(tmp_path: Path) -> None:
    """A file may align its tensors to single bytes."""
    path = tmp_path / "m.gguf"
    keys = [key("general.alignment", UINT32, struct.pack("<I", 1))]
    values = struct.pack("<3f", 1, 2, 3)
    for offset in range(4):
        tensors = [tensor("t", F32, (3,), offset)]
        path.write_bytes(gguf_bytes(keys, tensors, bytes(offset) + values, alignment=1))
        mapped = TensorFile(read_gguf_header(path)).map("t")
        assert mapped.tolist() == [1, 2, 3]
        assert mapped.data_ptr() % 4 == 0


@pytest.mark.parametrize("way", ["read", "map"])
def test_row_438_a_gguf_file_cut_short_after_opening(path: Path, way: str) -> None:
    file = TensorFile(read_gguf_header(path))
    os.truncate(path, 4096)
    with pytest.raises(ModelError, match="changed while it was being read"):
        getattr(file, way)("Q4_K.1")
