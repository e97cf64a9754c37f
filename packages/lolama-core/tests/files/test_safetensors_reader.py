from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lolama_core.files import safetensors_header
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.files.tensor_file import DTYPES
from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_core.testing.promises import Promises

LENGTH_2_63 = (2**63).to_bytes(8, "little")


def raw(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        SafetensorsFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    return str(caught.value)


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    """Every dtype; empty tensors and scalars; bytes compared, so that NaN equals itself."""
    tensors = {
        f"{name}.{'x'.join(map(str, shape))}": random_tensor(dtype, *shape)
        for name, dtype in DTYPES.items()
        for shape in ((3, 5), (), (0, 4), (7,))
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "m.safetensors")
    assert file.metadata == {"format": "pt"}
    assert file.header().keys() == tensors.keys()
    for name, tensor in tensors.items():
        read = file.read(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
        assert file.header()[name].shape == tuple(tensor.shape)
        same = torch.equal(read.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
        assert same, name


def test_odd_offsets_and_lengths(tmp_path: Path) -> None:
    """The format allows a float at any byte, and a header of any length."""
    values = torch.randn(3)
    data = b"\x07" + bytes(values.view(torch.uint8).tolist()) + b"\x09"
    path = tmp_path / "m.safetensors"
    for padding in range(5):
        header = {
            "a": entry("U8", [1], 0, 1),
            "b": entry("F32", [3], 1, 13),
            "c": entry("I8", [], 13, 14),
        }
        path.write_bytes(raw(json.dumps(header).encode() + b" " * padding, data))
        file = SafetensorsFile(path)
        assert torch.equal(file.read("b"), values)
        assert (int(file.read("a")), int(file.read("c"))) == (7, 9)


def test_what_was_read_is_the_callers_own(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(4)}, path)
    file = SafetensorsFile(path)
    file.read("a").zero_()
    assert torch.equal(file.read("a"), torch.ones(4))


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw({}))
    with pytest.raises(KeyError):
        SafetensorsFile(path).read("a")


def test_reading_uses_no_map_and_one_copy(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    tensor = SafetensorsFile(path).read("a")
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(path) not in maps.read_text()
    assert tensor.data_ptr() % 64 == 0


def is_mapped(path: Path) -> bool:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not list maps")
    return str(path) in maps.read_text()


def test_a_map_holds_what_reading_gives(tmp_path: Path) -> None:
    """Every dtype; empty tensors and scalars; tensors that begin in the middle of a page."""
    path = tmp_path / "m.safetensors"
    tensors = {
        f"{name}.{'x'.join(map(str, shape))}": random_tensor(dtype, *shape)
        for name, dtype in DTYPES.items()
        for shape in ((3, 5), (), (0, 4), (50, 200))
    }
    save_file(tensors, path)
    file = SafetensorsFile(path)
    for name, tensor in tensors.items():
        mapped = file.map(name)
        assert (mapped.dtype, mapped.shape) == (tensor.dtype, tensor.shape)
        same = torch.equal(
            mapped.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )
        assert same, name


def test_a_map_lives_as_long_as_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(1000)}, path)
    kept = SafetensorsFile(path).map("a")[10:]
    assert is_mapped(path)
    path.unlink()  # as an upgrade of the package does
    assert kept[0] == 10
    del kept
    assert not is_mapped(path)


def test_writing_to_a_map_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(5000)}, path)
    before = path.read_bytes()
    file = SafetensorsFile(path)
    weight = torch.nn.Parameter(file.map("a"))
    with torch.no_grad():
        weight.sub_(1)  # as an optimizer does
    assert torch.equal(weight, torch.zeros(5000))
    assert torch.equal(file.map("a"), torch.ones(5000))
    assert path.read_bytes() == before


def test_a_tensor_at_an_odd_address_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    values = torch.randn(3)
    data = b"\x07" + bytes(values.view(torch.uint8).tolist())
    path.write_bytes(raw({"a": entry("U8", [1], 0, 1), "b": entry("F32", [3], 1, 13)}, data))
    tensor = SafetensorsFile(path).map("b")
    assert torch.equal(tensor, values)
    assert tensor.data_ptr() % 4 == 0
    assert not is_mapped(path)


def test_where_there_are_no_maps_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(10)}, path)

    def refuse(*args: Any, **kwargs: Any) -> mmap.mmap:
        raise OSError(19, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert torch.equal(SafetensorsFile(path).map("a"), torch.ones(10))


F32 = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="row28-empty"),
        pytest.param(b"1234567", "is 7 bytes long", id="row28-7-bytes"),
        pytest.param(bytes(8), "header is 0 bytes", id="row29-length-0"),
        pytest.param(bytes(100), "header is 0 bytes", id="row29-zeros"),
        pytest.param(LENGTH_2_63 + b"{}", "limit is 16 MiB", id="row29-length-2^63"),
        pytest.param(b"\xff" * 100, "limit is 16 MiB", id="row29-length-2^64-1"),
        pytest.param(b"\3" + bytes(7) + b"{}", "cut short", id="row29-length-past-the-end"),
        pytest.param(b"\2" + bytes(7), "cut short", id="row29-no-header"),
        pytest.param(raw({"a": F32}, bytes(7)), "cut short: 7 bytes", id="row30-truncated"),
        pytest.param(raw({"a": F32}), "cut short: 0 bytes", id="row30-no-data"),
        pytest.param(raw({"a": F32}, bytes(9)), "1 bytes after", id="row31-trailing"),
        pytest.param(raw({}, b"x"), "1 bytes after", id="row31-trailing-after-nothing"),
        pytest.param(
            raw({"a": F32, "b": entry("F32", [2], 4, 12)}, bytes(12)),
            "'b' overlaps 'a'",
            id="row32-overlap",
        ),
        pytest.param(
            raw({"a": F32, "b": F32}, bytes(8)), "'b' overlaps 'a'", id="row32-same-place"
        ),
        pytest.param(
            raw({"a": F32, "b": entry("F32", [2], 12, 20)}, bytes(20)),
            "'b' leaves a gap after 'a'",
            id="row32-gap",
        ),
        pytest.param(
            raw({"a": entry("F32", [2], 4, 12)}, bytes(12)),
            "'a' leaves a gap after the start",
            id="row32-gap-at-the-start",
        ),
        pytest.param(
            raw({"a": entry("F32", [2], 8, 0)}, bytes(8)), "before its start", id="row32-backwards"
        ),
        pytest.param(
            raw({"a": entry("F32", [-2], 0, 8)}, bytes(8)), "'-2' in its shape", id="row33-negative"
        ),
        pytest.param(
            raw({"a": entry("F32", [-1, -2], 0, 8)}, bytes(8)), "in its shape", id="row33-two-minus"
        ),
        pytest.param(
            raw({"a": entry("F32", [2**63], 0, 8)}, bytes(8)), "in its shape", id="row33-2^63"
        ),
        pytest.param(
            raw({"a": entry("F32", [2**32, 2**32], 0, 0)}), "impossible", id="row33-overflow"
        ),
        pytest.param(
            raw({"a": entry("F32", [2**62, 2**62, 0], 0, 0)}), "impossible", id="row33-overflow-0"
        ),
        pytest.param(
            raw({"a": entry("F32", [2.0], 0, 8)}, bytes(8)), "in its shape", id="row33-float"
        ),
        pytest.param(
            raw({"a": entry("F32", [True, 2], 0, 8)}, bytes(8)), "in its shape", id="row33-bool"
        ),
        pytest.param(
            raw({"a": entry("F32", ["2"], 0, 8)}, bytes(8)), "in its shape", id="row33-text"
        ),
        pytest.param(
            raw({"a": entry("F32", [1] * 17, 0, 4)}, bytes(4)), "17 dimensions", id="row33-17-dims"
        ),
        pytest.param(
            raw({"a": entry("F32", [3], 0, 8)}, bytes(8)), "needs 12", id="row33-size-mismatch"
        ),
        pytest.param(
            raw({"a": entry("F32", [2], 0, 2**64)}, bytes(8)), "data_offsets", id="row33-offset"
        ),
        pytest.param(
            raw({"a": entry("F33", [2], 0, 8)}, bytes(8)), "dtype 'F33'", id="row34-unknown"
        ),
        pytest.param(raw({"a": {**F32, "dtype": 7}}, bytes(8)), "dtype '7'", id="row34-number"),
        pytest.param(
            raw(b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2), bytes(8)),
            "'a' twice",
            id="row35-duplicate",
        ),
        pytest.param(
            raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
            "'dtype' twice",
            id="row35-duplicate-inside",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            "git-lfs pointer, not the file it points to; run `git lfs pull`",
            id="row36-lfs",
        ),
        pytest.param(b"<!doctype html>\n<p>Log in", "web page (HTML)", id="row36-html"),
        pytest.param(b"PK\x03\x04" + bytes(90), "PyTorch pickle", id="row36-zip"),
        pytest.param(b"\x80\x02}q\x00." + bytes(90), "PyTorch pickle", id="row36-pickle"),
        pytest.param(b"GGUF\3" + bytes(90), "GGUF", id="row36-gguf"),
        pytest.param(raw(b"[1]"), "not a JSON object", id="array"),
        pytest.param(raw(b" {}"), "not a JSON object", id="leading-space"),
        pytest.param(raw(b"{}\0"), "not valid JSON", id="zero-padding"),
        pytest.param(raw(b'{"\xff":1}'), "not UTF-8", id="not-utf-8"),
        pytest.param(raw(b'{"a":' * 10**5), "levels deep", id="nested"),
        pytest.param(raw({"a": []}), "not described by", id="entry-is-a-list"),
        pytest.param(raw({"a": {"dtype": "F32"}}), "not described by", id="entry-incomplete"),
        pytest.param(raw({"a": {**F32, "x": 1}}, bytes(8)), "not described by", id="entry-more"),
        pytest.param(raw({"a": {**F32, "shape": 2}}), "not a list", id="shape-is-no-list"),
        pytest.param(raw({"a": {**F32, "data_offsets": [0]}}), "1 data_offsets", id="one-offset"),
        pytest.param(raw({"__metadata__": {"a": 1}}), "__metadata__", id="metadata-number"),
        pytest.param(raw({"__metadata__": None}), "__metadata__", id="metadata-null"),
        pytest.param(raw({"\x1b[2J" + "x" * 999: []}), r"'\x1b[2Jxxx", id="name-with-escape"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    message = refused(path)
    assert reason in message
    assert len(message) < len(str(path)) + 300


def test_a_length_that_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    """A header of 640 bytes makes a file that begins with 0x80 0x02."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw(b"{}".ljust(640)))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert SafetensorsFile(path).header() == {}


def with_tensors(path: Path, count: int, key: str = "data_offsets") -> Path:
    """The first 16 MiB at most of a file whose header names ``count`` empty tensors."""
    one = '"%x":{"dtype":"U8","shape":[0],"' + key + '":[0,0]}'
    text = "{" + ",".join(one % number for number in range(count)) + "}"
    path.write_bytes(raw(text.encode()[: 16 * 2**20]))
    return path


def test_row37_too_many_tensors_are_counted_before_the_header_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        safetensors_header, "parse_json_object", lambda *_: pytest.fail("it was parsed")
    )
    assert "100,000" in refused(with_tensors(tmp_path / "m.safetensors", 300_000))


def test_row37_too_many_tensors_whose_count_at_a_glance_is_deceived(tmp_path: Path) -> None:
    path = with_tensors(tmp_path / "m.safetensors", 100_001, "data\\u005foffsets")
    assert "100,000" in refused(path)


@pytest.mark.promise
def test_row37_too_many_tensors_are_refused_soon(tmp_path: Path, promises: Promises) -> None:
    path = with_tensors(tmp_path / "m.safetensors", 300_000)
    with promises.within(2, "a header of 300,000 tensors"):
        refused(path)
    path = with_tensors(path, 100_001, "data\\u005foffsets")
    with promises.within(5, "a header of 100,001 tensors, spelled oddly"):
        refused(path)


def test_row38_pipe_directory_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    assert "pipe" in refused(tmp_path / "m.safetensors")
    assert "directory" in refused(tmp_path)
    assert "device" in refused(Path("/dev/zero"))
    assert "does not exist" in refused(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("way", ["read", "map"])
@pytest.mark.parametrize("restore_time", [False, True])
def test_row46_cut_short_after_opening(tmp_path: Path, restore_time: bool, way: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(100_000)}, path)
    file = SafetensorsFile(path)
    before = path.stat()
    os.truncate(path, 4096)
    if restore_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="changed while it was being read"):
        getattr(file, way)("a")


def test_row46_cut_short_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after the last look at its size: a short read is an error as well."""
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(50_000)}, path)
    file = SafetensorsFile(path)
    empty = torch.empty

    def cut(*args: Any, **kwargs: Any) -> torch.Tensor:
        os.truncate(path, 4096)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", cut)
    with pytest.raises(ModelError, match="too early"):
        file.read("a")


def test_row46_replaced_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(10)}, path)
    file = SafetensorsFile(path)
    path.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        file.read("a")
    save_file({"a": torch.ones(20)}, path)
    with pytest.raises(ModelError, match="changed"):
        file.read("a")


def test_booleans_are_zero_or_one(tmp_path: Path) -> None:
    """Any other byte in a torch.bool is undefined behavior."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw({"a": entry("BOOL", [3], 0, 3)}, b"\0\1\2"))
    file = SafetensorsFile(path)
    with pytest.raises(ModelError, match="neither 0 nor 1"):
        file.read("a")


def test_no_memory_for_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"small": torch.ones(10), "large": torch.ones(2**18)}, path)

    def full(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def full_too(*args: Any, **kwargs: Any) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(torch, "empty", full)
    monkeypatch.setattr(mmap, "mmap", full_too)
    file = SafetensorsFile(path)
    for name in file.header():
        with pytest.raises(ResourceError, match=f"no memory for tensor '{name}'"):
            file.read(name)


@pytest.mark.parametrize("way", ["read", "map"])
def test_row_105_another_content_of_the_same_size_and_time(tmp_path: Path, way: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    os.utime(path, (0, 0))
    file = SafetensorsFile(path)
    time.sleep(0.02)  # the system's clock for files ticks a hundred times a second
    save_file({"a": torch.zeros(1000)}, path)
    os.utime(path, (0, 0))
    with pytest.raises(ModelError, match="changed while it was being read"):
        getattr(file, way)("a")


def test_row_105_a_second_name_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    file = SafetensorsFile(path)
    time.sleep(0.02)
    os.link(path, tmp_path / "other")
    assert torch.equal(file.read("a"), torch.ones(1000))
