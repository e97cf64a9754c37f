"""Files damaged at random: each is read, or refused with the typed error.

Every case has its own seed, named when it fails. ``LOLAMA_FUZZ_CASES`` sets the number of safetensors files
(there are half as many JSON files) and ``LOLAMA_FUZZ_FIRST`` the first, so that a long run can be cut in
pieces and one case replayed.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lolama_core.files.checkpoint_config import check_config
from lolama_core.files.checkpoint_reader import check_finite
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.files.safetensors_writer import SafetensorsWriter
from lolama_core.files.untrusted import read_json
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.checkpoint import tiny_config
from lolama_core.testing.promises import Promises

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))

ODD_BYTES = [b"", b"\0", b"\xff" * 8, b"{", b"}", b"[", b'"', b"\\u", b":", b",", b"-", b"1e999"]
ODD_VALUES: list[Any] = [
    *(0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**299, 0.5, -0.0, 1e308),
    *(None, True, "", "F32", "\x00", "F64", [], [[]], {}, [0, 0], [2**32, 2**32], ["x"], [0] * 99),
]


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled or put in, or the end cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(result) + 1)
        length = chance.choice([1, 1, 2, 8, 64])
        kind = chance.randrange(6)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            result[place : place + length] = chance.randbytes(length)
        elif kind == 2:
            del result[place : place + length]
        elif kind == 3:
            result[place:place] = result[place : place + length]
        elif kind == 4:
            result[place:place] = chance.choice(ODD_BYTES)
        else:
            del result[place:]
    return bytes(result)


def damaged_value(value: Any, chance: random.Random) -> Any:
    """Somewhere inside, one value replaced, removed, renamed or shifted by a little."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        copy = dict(value)
        key = chance.choice(list(copy))
        kind = chance.randrange(8)
        if kind == 0:
            del copy[key]
        elif kind == 1:
            copy[chance.choice(["", "__metadata__", "x" * 300, key + "\x1b"])] = copy.pop(key)
        else:
            copy[key] = damaged_value(copy[key], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], damaged_value(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and chance.random() < 0.5:
        return value + chance.choice([-8, -4, -1, 1, 4, 8])
    return chance.choice(ODD_VALUES)


def whole_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """A small sound file: its header, and its data."""
    with open(path, "x+b", buffering=0) as file:
        writer = SafetensorsWriter(file)
        writer.add("embed_tokens.weight", torch.randn(8, 4))
        writer.add("layers.0.attention.q_proj.weight", torch.randn(4, 4).bfloat16())
        writer.add("layers.0.attention_norm.weight", torch.randn(3).half())
        writer.add("flags", torch.tensor([True, False]))
        writer.add("empty", torch.randn(0, 5))
        writer.finish()
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def outcome(read: Callable[[], object], name: str) -> bool:
    """Whether it was read; anything but success or a printable ModelError fails the test."""
    message = ""
    try:
        read()
    except ModelError as error:
        message = str(error)
    except Exception as error:
        pytest.fail(f"{name}: {type(error).__name__}: {error}")
    assert message.isprintable(), name
    return not message


def assert_safetensors_agrees(path: Path, name: str) -> None:
    """What is accepted here, the format's own reader accepts too, and reads the same bytes."""
    ours = SafetensorsFile(path)
    with safe_open(path, "pt") as theirs:
        assert set(theirs.keys()) == ours.header().keys(), name
        for key in ours.header():
            mine, other = ours.read(key), theirs.get_tensor(key)
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape), name
            mine, other = (tensor.reshape(-1).view(torch.uint8) for tensor in (mine, other))
            assert torch.equal(mine, other), name


def read_all(path: Path) -> None:
    file = SafetensorsFile(path)
    for name, info in file.header().items():
        tensor = file.read(name)
        assert tuple(tensor.shape) == info.shape
        check_finite(name, tensor, str(path))


def damaged_safetensors(path: Path) -> Iterator[str]:
    """Write one case after another to ``path``; their names."""
    header, data = whole_file(path.with_name("whole.safetensors"))
    for case in range(FIRST, FIRST + CASES):
        chance = random.Random(f"safetensors {case}")
        text = json.dumps(header).encode()
        if case % 2:  # a sound frame around a damaged header, or most cases would end at the frame
            text = json.dumps(damaged_value(header, chance)).encode()
        elif case % 4:
            text = damaged_bytes(text, chance)
        content = len(text).to_bytes(8, "little") + text + data
        path.write_bytes(content if case % 4 else damaged_bytes(content, chance))
        yield f"safetensors {case}"


def test_rows28_to_44_damaged_safetensors(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("damaged safetensors files", f"{FIRST} to {FIRST + CASES - 1}")
    path = tmp_path / "damaged.safetensors"
    good = 0
    for name in damaged_safetensors(path):
        if outcome(lambda: read_all(path), name):
            good += 1
            assert_safetensors_agrees(path, name)
    assert 0 < good < CASES / 2


def damaged_json(path: Path) -> Iterator[str]:
    """Write one case after another to ``path``; their names."""
    config = {**tiny_config(), "quantization": {"tensors": {"a": "I8"}}, "source": {"repo": "ä"}}
    for case in range(FIRST, FIRST + CASES // 2):
        chance = random.Random(f"json {case}")
        if case % 2:
            path.write_text(json.dumps(damaged_value(config, chance)), encoding="utf-8")
        else:
            text = json.dumps(config, ensure_ascii=False).encode()
            path.write_bytes(damaged_bytes(text, chance))
        yield f"json {case}"


def test_rows47_to_50_damaged_json(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("damaged lolama configurations", f"{FIRST} to {FIRST + CASES // 2 - 1}")
    path = tmp_path / "config.json"
    read = [
        outcome(lambda: check_config(read_json(path), str(path)), name)
        for name in damaged_json(path)
    ]
    assert 0 < sum(read) < CASES / 2


@pytest.mark.promise
def test_rows28_to_50_a_damaged_file_is_read_or_refused_soon(
    tmp_path: Path, promises: Promises
) -> None:
    path = tmp_path / "damaged.safetensors"
    for name in damaged_safetensors(path):
        with promises.within(2, "a damaged safetensors file", name):
            outcome(lambda: read_all(path), name)
    path = tmp_path / "config.json"
    for name in damaged_json(path):
        with promises.within(2, "a damaged lolama configuration", name):
            outcome(lambda: check_config(read_json(path), str(path)), name)
