from __future__ import annotations

import os
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest

from lolama_core.files import gguf_header, gguf_values
from lolama_core.files.gguf_header import (
    MAX_HEADER_BYTES,
    GGUFHeader,
    is_gguf,
    read_gguf_header,
    read_gguf_tensors,
)
from lolama_core.files.gguf_types import TYPES, row_bytes
from lolama_core.files.parallel_read import read_into
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.gguf_file import (
    ARRAY,
    F32,
    INT32,
    Q8_0,
    TEXT,
    UINT32,
    array,
    gguf_bytes,
    key,
    tensor,
    text,
)

TERABYTE = struct.pack("<Q", 2**40)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_gguf_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    return str(caught.value)


def written(path: Path, fill: Callable[[gguf.GGUFWriter], object]) -> Path:
    """A file of the library."""
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


VALUES: dict[str, tuple[str, Any]] = {
    "a.uint8": ("add_uint8", 255),
    "a.int8": ("add_int8", -128),
    "a.uint16": ("add_uint16", 2**16 - 1),
    "a.int16": ("add_int16", -(2**15)),
    "a.uint32": ("add_uint32", 2**32 - 1),
    "a.int32": ("add_int32", -(2**31)),
    "a.uint64": ("add_uint64", 2**64 - 1),
    "a.int64": ("add_int64", -(2**63)),
    "a.float32": ("add_float32", 0.5),
    "a.float64": ("add_float64", 0.1),
    "a.true": ("add_bool", True),
    "a.false": ("add_bool", False),
    "a.text": ("add_string", "\ufeff€ \0 and more"),
    "a.texts": ("add_array", ["a", "", "\ufeff", "ä" * 300, "\0"]),
    "a.numbers": ("add_array", [1, -2, 3]),
    "a.floats": ("add_array", [0.5, -1.5, float("inf")]),
    "a.booleans": ("add_array", [True, False]),
}


def test_reads_the_values_that_gguf_writes(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        for name, (method, value) in VALUES.items():
            getattr(writer, method)(name, value)

    header = read_gguf_header(written(tmp_path / "m.gguf", fill))
    expected = {name: value for name, (_, value) in VALUES.items()}
    assert header.metadata == {"general.architecture": "llama", **expected}
    same = [type(value) is type(expected[name]) for name, value in [*header.metadata.items()][1:]]
    assert all(same)
    assert (header.version, header.tensors, header.path) == (3, {}, tmp_path / "m.gguf")


def test_reads_the_places_that_gguf_writes(tmp_path: Path) -> None:
    """Every type, in one to four dimensions, at two alignments."""

    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_custom_alignment(alignment)
        for kind in gguf.GGMLQuantizationType:
            values, size = gguf.GGML_QUANT_SIZES[kind]
            for outer in ((), (3,), (2, 3), (1, 2, 3)):
                rows = numpy.zeros((*outer, 2 * size), numpy.uint8)
                name = f"{kind.name}.{len(outer)}"
                writer.add_tensor(name, rows, raw_dtype=kind)
                shapes[name] = (*outer, 2 * values)

    for alignment in (32, 128):
        shapes: dict[str, tuple[int, ...]] = {}
        path = written(tmp_path / f"{alignment}.gguf", fill)
        header, theirs = read_gguf_header(path), gguf.GGUFReader(path)
        assert {name: info.shape for name, info in header.tensors.items()} == shapes
        for one in theirs.tensors:
            info = header.tensors[one.name]
            assert info.dtype == one.tensor_type.name == one.name.split(".")[0]
            assert header.data_start + info.begin == one.data_offset
            assert info.end - info.begin == one.n_bytes


def test_types_are_those_of_gguf() -> None:
    known = {
        kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert {number: tuple(TYPES[number]) for number in known} == known
    assert row_bytes("F32", 3) == 12
    assert row_bytes("Q6_K", 512) == 420


def test_version_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_bytes([key("a", TEXT, text("b"))], [tensor("t", F32, (2, 3))], bytes(24), version=2)
    )
    header = read_gguf_header(path)
    assert (header.version, header.metadata) == (2, {"a": "b"})
    assert header.tensors["t"].shape == (2, 3)


def test_gaps_and_padding_are_allowed(tmp_path: Path) -> None:
    """llama.cpp pads every tensor; other writers leave the last one as it is, or align more than they say."""
    path = tmp_path / "m.gguf"
    tensors = [tensor("b", F32, (1,), 64), tensor("a", F32, (), 0), tensor("none", F32, (0, 3), 64)]
    for after in (0, 1, 100):
        path.write_bytes(gguf_bytes([], tensors, bytes(68 + after)))
        assert read_gguf_header(path).tensors["b"].begin == 64
    assert read_gguf_header(path).tensors["a"].shape == ()


def test_what_begins_as_gguf_does(tmp_path: Path) -> None:
    for content, expected in ((b"GGUF\3", True), (b"GGU", False), (b"", False), (b"{", False)):
        (tmp_path / "m").write_bytes(content)
        assert is_gguf(tmp_path / "m") is expected


WHOLE = gguf_bytes([key("a", TEXT, text("b"))], [tensor("t", F32, (8,))], bytes(32))


def with_tensor(*tensors: bytes, data: int = 64, align: int | None = None) -> bytes:
    keys = [] if align is None else [key("general.alignment", UINT32, struct.pack("<I", align))]
    return gguf_bytes(keys, tensors, bytes(data), alignment=align or 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="430-empty"),
        pytest.param(b"GGUF", "cut short: 4 bytes", id="430-4-bytes"),
        pytest.param(WHOLE[:20], "cut short: 20 bytes", id="430-in-the-counts"),
        pytest.param(WHOLE[:30], "cut short: 30 bytes", id="430-in-a-key"),
        pytest.param(WHOLE[:70], "cut short: 70 bytes", id="430-in-a-tensor"),
        pytest.param(WHOLE[:-1], "cut short: 31 bytes of data", id="430-in-the-data"),
        pytest.param(WHOLE[:-33], "cut short: 0 bytes of data", id="430-in-the-padding"),
        pytest.param(
            b"GGUF" + struct.pack("<III", 1, 0, 0) + bytes(99), "version 1", id="430-version-1"
        ),
        pytest.param(gguf_bytes(version=0), "version 0", id="430-version-0"),
        pytest.param(gguf_bytes(version=4), "version 4; versions 2 and 3", id="430-version-4"),
        pytest.param(
            b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian", id="430-big-endian"
        ),
        pytest.param(b"lmgg" + bytes(90), "before GGUF", id="430-ggml"),
        pytest.param(b"tjgg" + bytes(90), "before GGUF", id="430-ggjt"),
        pytest.param(bytes(100), "not a GGUF file", id="430-zeros"),
        pytest.param(b"\2" + bytes(7) + b"{}", "not a GGUF file", id="430-safetensors"),
        pytest.param(b"<!doctype html>\n<p>Log in", "web page (HTML)", id="430-html"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            "git-lfs pointer",
            id="430-lfs",
        ),
        pytest.param(
            gguf_bytes([key("a", UINT32, bytes(4))] * 2), "the key 'a' twice", id="432-key"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,)), tensor("t", F32, (8,), 32)),
            "the tensor 't' twice",
            id="432-tensor",
        ),
        pytest.param(gguf_bytes([key("", UINT32, bytes(4))]), "without a name", id="432-no-key"),
        pytest.param(with_tensor(tensor("", F32, (8,))), "without a name", id="432-no-tensor"),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(ARRAY, 1, array(UINT32, 1, bytes(4))))]),
            "arrays within an array, for 'a'",
            id="432-nested",
        ),
        pytest.param(
            gguf_bytes([key("a", 13, bytes(8))]), "unknown type, 13, for 'a'", id="432-type"
        ),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(99, 1, bytes(8)))]),
            "unknown type, 99, for 'a'",
            id="432-type-of-items",
        ),
        pytest.param(
            gguf_bytes([key("a", 7, b"\2")]), "neither 0 nor 1", id="432-boolean"
        ),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(7, 2, b"\0\xff"))]),
            "neither 0 nor 1",
            id="432-booleans",
        ),
        pytest.param(gguf_bytes([key(b"\xff", 7, b"\0")]), "not UTF-8", id="433-key"),
        pytest.param(gguf_bytes([key("a", TEXT, text(b"a\x80"))]), "not UTF-8", id="433-text"),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(TEXT, 2, text("a") + text(b"\xed\xa0\x80")))]),
            "not UTF-8",
            id="433-texts",
        ),
        pytest.param(with_tensor(tensor(b"\xc3", F32, (8,))), "not UTF-8", id="433-tensor"),
        pytest.param(
            gguf_bytes([key("x" * 65_536, 7, b"\0")]), "more than 65,535", id="433-long-key"
        ),
        pytest.param(with_tensor(align=0), "0 for general.alignment", id="434-alignment-0"),
        pytest.param(with_tensor(align=48), "48 for general.alignment", id="434-alignment-48"),
        pytest.param(
            gguf_bytes([key("general.alignment", INT32, struct.pack("<i", 32))]),
            "another type than uint32",
            id="434-alignment-type",
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,), 16)), "no multiple of 32", id="434-offset-16"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,), 32), align=64),
            "no multiple of 64",
            id="434-offset-32",
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,), 64)), "describes 96", id="434-outside"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,), 2**64 - 32)), "a huge integer", id="434-far"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (9,)), tensor("u", F32, (8,), 32)),
            "'u' overlaps 't'",
            id="434-overlap",
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (8,)), tensor("u", F32, (8,))),
            "'u' overlaps 't'",
            id="434-same-place",
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (2**32, 2**32))), "impossible", id="435-overflow"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (2**62, 2**62, 0))), "impossible", id="435-overflow-0"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (2**64 - 1,))), "impossible", id="435-negative"
        ),
        pytest.param(
            with_tensor(tensor("t", F32, (1,) * 5)), "5 dimensions", id="435-5-dimensions"
        ),
        pytest.param(
            with_tensor(tensor("t", Q8_0, (3, 33)), data=999),
            "rows of 33 values; Q8_0 has blocks of 32",
            id="435-no-whole-blocks",
        ),
        pytest.param(
            with_tensor(tensor("t", 12, (256, 128)), data=99_999),
            "Q4_K has blocks of 256",
            id="435-rows-shorter-than-a-block",
        ),
        pytest.param(
            with_tensor(tensor("t", Q8_0, ())), "rows of 1 values", id="435-a-number-of-blocks"
        ),
        pytest.param(with_tensor(tensor("t", 999, (8,))), "type 999", id="436-unknown"),
        pytest.param(
            with_tensor(tensor("t", 31, (8,))), "'t' is Q4_0_4_4", id="436-given-up"
        ),
        pytest.param(
            with_tensor(tensor("\x1b[2J" + "x" * 999, 999, (8,))), r"'\x1b[2Jxxx", id="escape"
        ),
    ],
)  # fmt: skip
def test_rows_430_and_432_to_436_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    message = refused(path)
    assert reason in message
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(gguf_bytes(counts=(10**6, 0)), "1,000,000 tensors; the limit", id="tensors"),
        pytest.param(gguf_bytes(counts=(100_000, 0)), "without a name", id="absent"),
        pytest.param(gguf_bytes(counts=(2**64 - 1, 0)), "the limit is 100,000", id="all-tensors"),
        pytest.param(gguf_bytes(counts=(0, 10**6)), "1,000,000 keys; the limit", id="keys"),
        pytest.param(gguf_bytes([TERABYTE + b"a"]), "cut short", id="terabyte-key"),
        pytest.param(gguf_bytes([key("a", TEXT, TERABYTE)]), "cut short", id="terabyte-text"),
        pytest.param(
            gguf_bytes([key("a", TEXT, b"\xff" * 8)]), "a huge integer", id="longest-text"
        ),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(TEXT, 1, TERABYTE))]), "cut short", id="item"
        ),
        *(
            pytest.param(
                gguf_bytes([key("a", ARRAY, array(kind, count, b""))]), reason, id=f"{kind}-{count}"
            )
            for kind in (0, 6, 7, TEXT)
            for count, reason in ((10**9, "4,000,000 items"), (10**6, "cut short"))
        ),
        pytest.param(with_tensor(tensor("t", 1, (2**39,))), "cut short", id="terabyte-tensor"),
    ],
)
def test_row_431_claims_are_refused_before_work_is_done(
    tmp_path: Path, content: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file of a few gigabytes, of which the claims could be true, no more is read."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    done = counted(monkeypatch, lambda: refused(path))
    assert reason in refused(path)
    assert done["bytes"] <= 2**20
    assert done["calls"] < 500


def counted(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Counter[str]:
    """What ``act`` takes: bytes that are read, and calls of functions, Python's and others."""
    done: Counter[str] = Counter()

    def reading(file: Any, offset: int, target: memoryview, subject: str) -> None:
        done["bytes"] += len(target)
        read_into(file, offset, target, subject)

    def calling(frame: object, event: str, argument: object) -> None:
        done["calls"] += event in ("call", "c_call")

    monkeypatch.setattr(gguf_values, "read_into", reading)
    sys.setprofile(calling)
    try:
        act()
    finally:
        sys.setprofile(None)
    monkeypatch.undo()
    return done


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(gguf_bytes([key("a", TEXT, TERABYTE)]), "134,217,728 bytes", id="text"),
        *(
            pytest.param(
                gguf_bytes([key("a", ARRAY, array(kind, 10**9, b""))]), "4,000,000 items", id=name
            )
            for kind, name in ((10, "items"), (TEXT, "empty-texts"))
        ),
        pytest.param(
            gguf_bytes([key("a", ARRAY, array(TEXT, 3, text("a") + TERABYTE))]),
            "134,217,728 bytes",
            id="texts",
        ),
    ],
)
def test_row_431_claims_that_the_size_of_the_file_bears_out(
    tmp_path: Path, content: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    os.truncate(path, 2**41)  # it takes no place on the disk
    done = counted(monkeypatch, lambda: refused(path))
    assert reason in refused(path)
    assert done["bytes"] <= 2**20
    assert done["calls"] < 500


def test_row_431_many_long_texts_end_at_the_limit(tmp_path: Path) -> None:
    """Each by itself is allowed."""
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([key("a", TEXT, text(b"x" * 1000)), key("b", TEXT, text("y"))]))
    assert "header of more than 1,024 bytes" in refused_at(path, 1024)
    assert read_gguf_header(path, 2048).metadata["b"] == "y"
    assert MAX_HEADER_BYTES == 2**27


def refused_at(path: Path, max_bytes: int) -> str:
    with pytest.raises(ModelError) as caught:
        read_gguf_header(path, max_bytes)
    return str(caught.value)


def test_row_441_a_large_vocabulary_takes_a_few_steps_for_each_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for a length and one for a text; scores and types in one go; every byte at most twice."""
    tokens = [f"token {number}" for number in range(26_000)]
    merges = [f"a{number} b" for number in range(50_000)]
    scores = [float(number) for number in range(26_000)]

    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_array("tokenizer.ggml.tokens", tokens)
        writer.add_array("tokenizer.ggml.scores", scores)
        writer.add_array("tokenizer.ggml.token_type", [1] * 26_000)
        writer.add_array("tokenizer.ggml.merges", merges)
        writer.add_tensor("t", numpy.zeros((1000, 1000), numpy.float32))

    path = written(tmp_path / "m.gguf", fill)
    found = []
    done = counted(monkeypatch, lambda: found.append(read_gguf_header(path)))
    assert found[0].metadata["tokenizer.ggml.tokens"] == tokens
    assert found[0].metadata["tokenizer.ggml.scores"] == scores
    assert found[0].metadata["tokenizer.ggml.merges"] == merges
    assert done["calls"] < 3 * (len(tokens) + len(merges)) + 1000
    assert done["bytes"] < 2 * found[0].data_start


def test_pipe_directory_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    assert "pipe" in refused(tmp_path / "m.gguf")
    assert "directory" in refused(tmp_path)
    assert "device" in refused(Path("/dev/zero"))
    assert "does not exist" in refused(tmp_path / "absent.gguf")


def test_numbers_of_a_small_tensor(tmp_path: Path) -> None:
    factors = numpy.array([1.0, 1.5, 8.0], dtype=numpy.float32)
    path = written(tmp_path / "a.gguf", lambda to: to.add_tensor("rope_freqs.weight", factors))
    assert read_gguf_header(path).numbers("rope_freqs.weight") == [1.0, 1.5, 8.0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (numpy.array([1, numpy.nan], dtype=numpy.float32), "holds NaN or Inf"),
        (numpy.array([1, numpy.inf], dtype=numpy.float32), "holds NaN or Inf"),
        (numpy.ones(2, dtype=numpy.float16), r"is F16 of shape \(2,\), expected F32"),
        (numpy.ones((300, 300), dtype=numpy.float32), r"expected F32 and at most 65,536 values"),
    ],
)
def test_row_476_numbers_that_are_none(tmp_path: Path, values: Any, words: str) -> None:
    path = written(tmp_path / "a.gguf", lambda to: to.add_tensor("x", values))
    with pytest.raises(ModelError, match=words):
        read_gguf_header(path).numbers("x")


def test_row_476_numbers_of_a_file_that_was_cut(tmp_path: Path) -> None:
    values = numpy.ones(8, dtype=numpy.float32)
    path = written(tmp_path / "a.gguf", lambda to: to.add_tensor("x", values))
    header = read_gguf_header(path)
    os.truncate(path, header.data_start + 8)
    with pytest.raises(ModelError, match="changed while it was being read"):
        header.numbers("x")


def test_a_file_that_was_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    content = gguf_bytes(
        [key("general.architecture", TEXT, text("llama"))], [tensor("a", F32, [1])]
    )
    path.write_bytes(content + bytes(4))
    assert read_gguf_tensors(path).tensors.keys() == {"a"}
    path.write_bytes(
        content.replace(b"a" + bytes([1, 0, 0, 0]), b"b" + bytes([1, 0, 0, 0])) + bytes(4)
    )
    assert read_gguf_tensors(path).tensors.keys() == {"b"}  # which may have the same time of change
    monkeypatch.setattr("lolama_core.files.gguf_header._SECONDS_TO_TELL", -1.0)
    assert read_gguf_header(path).metadata
    reads: list[Path] = []
    real = gguf_header.read_gguf_header

    def counted(one: Path) -> GGUFHeader:
        reads.append(one)
        return real(one)

    monkeypatch.setattr(gguf_header, "read_gguf_header", counted)
    assert read_gguf_tensors(path).tensors.keys() == {"b"} and not reads
    assert not read_gguf_tensors(path).metadata
    other = tmp_path / "b.gguf"
    other.write_bytes(content + bytes(4))
    other.replace(path)
    assert read_gguf_tensors(path).tensors.keys() == {"a"} and reads == [path]
    monkeypatch.setattr("lolama_core.files.gguf_header._MOST_KNOWN", 1)
    path.rename(other)
    assert read_gguf_tensors(other).tensors.keys() == {"a"}
    assert gguf_header._KNOWN.keys() == {other}
