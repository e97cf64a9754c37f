"""GGUF files damaged at random: each is read as the gguf library reads it, or refused with the typed error.

Every case has its own seed, named when it fails. ``LOLAMA_FUZZ_CASES`` sets the number of files and
``LOLAMA_FUZZ_FIRST`` the first, so that a long run can be cut in pieces and one case replayed.
"""

from __future__ import annotations

import math
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from lolama_core.files.gguf_header import GGUFHeader, read_gguf_header
from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.gguf_file import (
    ARRAY,
    F32,
    INT32,
    Q8_0,
    TEXT,
    UINT16,
    UINT32,
    array,
    gguf_bytes,
    key,
    tensor,
    text,
)
from lolama_core.testing.promises import Promises

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "600"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))

Q4_K = 12
KEYS = [
    key("general.architecture", TEXT, text("llama")),
    key("general.alignment", UINT32, struct.pack("<I", 32)),
    key("llama.block_count", UINT32, struct.pack("<I", 2)),
    key("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
    key("split.no", UINT16, struct.pack("<H", 0)),
    key("flag", 7, b"\1"),
    key("large", 10, struct.pack("<Q", 2**63)),
    key("tokens", ARRAY, array(TEXT, 4, b"".join(map(text, ["<s>", "▁the", "", "ä" * 9])))),
    key("scores", ARRAY, array(6, 3, struct.pack("<3f", 0, -1, math.inf))),
    key("types", ARRAY, array(INT32, 3, struct.pack("<3i", 3, 1, 1))),
    key("flags", ARRAY, array(7, 2, b"\0\1")),
]
TENSORS = [
    tensor("token_embd.weight", Q8_0, (3, 64)),
    tensor("blk.0.attn_q.weight", Q4_K, (2, 256), 224),
    tensor("blk.0.attn_norm.weight", F32, (8,), 512),
    tensor("blk.0.ffn_gate_exps.weight", Q8_0, (2, 1, 32), 544),
    tensor("rope_freqs.weight", 1, (4,), 640),
]
DATA = bytes(one * 7 % 251 for one in range(672))

ODD_NUMBERS = [
    0,
    1,
    2,
    3,
    8,
    31,
    32,
    33,
    255,
    2**16,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
]
ODD_BYTES = [b"", b"\0", b"\xff" * 8, bytes(8), b"GGUF", text("a"), b"\xed\xa0\x80"]


def damaged_parts(chance: random.Random) -> bytes:
    """A sound frame around parts that are left out, doubled, exchanged, or damaged a little."""
    keys, tensors = list(KEYS), list(TENSORS)
    for _ in range(chance.randint(1, 2)):
        parts = chance.choice([keys, tensors])
        place = chance.randrange(len(parts))
        kind = chance.randrange(6)
        if kind == 0:
            del parts[place]
        elif kind == 1:
            parts.append(parts[place])
        elif kind == 2:
            chance.shuffle(parts)
        else:
            parts[place] = damaged_bytes(parts[place], chance)
        if not parts:
            break
    version, data = chance.choice([2, 3, 3, 3]), DATA
    if chance.random() < 0.1:
        version, data = chance.choice([0, 1, 4, 3 << 24]), DATA[: chance.randrange(len(DATA))]
    return gguf_bytes(keys, tensors, data, version=version)


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A bit turned, a number replaced, bytes changed, cut out, doubled or put in, or the end cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        place = chance.randrange(len(result) + 1)
        length = chance.choice([1, 1, 2, 4, 8])
        kind = chance.randrange(8)
        if kind <= 1 and place < len(result):
            result[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            number = chance.choice(ODD_NUMBERS).to_bytes(8, "little")
            result[place : place + length] = number[:length]
        elif kind == 3:
            result[place : place + length] = chance.randbytes(length)
        elif kind == 4:
            del result[place : place + length]
        elif kind == 5:
            result[place:place] = result[place : place + length]
        elif kind == 6:
            result[place:place] = chance.choice(ODD_BYTES)
        elif kind == 7 and chance.random() < 0.3:
            del result[place:]
    return bytes(result)


def damaged_files(path: Path) -> Iterator[str]:
    """Write one case after another to ``path``; their names."""
    whole = gguf_bytes(KEYS, TENSORS, DATA)
    for case in range(FIRST, FIRST + CASES):
        chance = random.Random(f"gguf {case}")
        path.write_bytes(damaged_parts(chance) if case % 2 else damaged_bytes(whole, chance))
        yield f"gguf {case}"


def read_all(path: Path) -> GGUFHeader:
    header = read_gguf_header(path)
    file = TensorFile(header)
    for name in header.tensors:
        file.read(name)
    return header


def outcome(path: Path, name: str) -> GGUFHeader | None:
    """What was read; anything but success or a printable ModelError fails the test."""
    try:
        return read_all(path)
    except ModelError as error:
        message = str(error)
    except Exception as error:
        pytest.fail(f"{name}: {type(error).__name__}: {error}")
    assert message.isprintable(), name
    assert len(message) < len(str(path)) + 300, name
    return None


def plain(value: Any) -> Any:
    """A value in which NaN equals itself."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def assert_gguf_agrees(path: Path, header: GGUFHeader, name: str) -> None:
    """What is accepted here, the library accepts too, and reads the same values and bytes."""
    theirs = gguf.GGUFReader(path)
    fields = {key: one for key, one in theirs.fields.items() if not key.startswith("GGUF.")}
    assert fields.keys() == header.metadata.keys(), name
    for each, value in header.metadata.items():
        assert plain(value) == plain(fields[each].contents()), f"{name}: {each}"
    assert [one.name for one in theirs.tensors] == list(header.tensors), name
    file = TensorFile(header)
    for one in theirs.tensors:
        info = header.tensors[one.name]
        assert info.dtype == one.tensor_type.name, name
        assert [int(size) for size in reversed(one.shape)] == list(info.shape), name
        mine = file.read(one.name).reshape(-1).view(torch.uint8)
        assert bytes(mine.tolist()) == one.data.tobytes(), name


def test_row_440_damaged_gguf_files(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("damaged GGUF files", f"{FIRST} to {FIRST + CASES - 1}")
    path = tmp_path / "damaged.gguf"
    good = 0
    for name in damaged_files(path):
        header = outcome(path, name)
        if header is not None:
            good += 1
            assert_gguf_agrees(path, header, name)
    assert CASES / 10 < good < CASES * 3 / 4


@pytest.mark.promise
def test_row_440_a_damaged_gguf_file_is_read_or_refused_soon(
    tmp_path: Path, promises: Promises
) -> None:
    path = tmp_path / "damaged.gguf"
    for name in damaged_files(path):
        with promises.within(2, "a damaged GGUF file", name):
            outcome(path, name)


def test_the_whole_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(gguf_bytes(KEYS, TENSORS, DATA))
    header = read_all(path)
    assert (len(header.metadata), len(header.tensors)) == (len(KEYS), len(TENSORS))
    assert_gguf_agrees(path, header, "whole")
