from __future__ import annotations

import io
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from lolama_core.files import gguf_values
from lolama_core.files.gguf_values import BOOL, UINT32, GGUFValues
from lolama_core.files.parallel_read import read_into
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.gguf_file import text

WORDS = ["", "a", "ä" * 40, "\ufeff", "x" * 700]


@pytest.mark.parametrize("first", [1, 8, 9, 64, 1000])
def test_values_may_lie_across_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(gguf_values, "_FIRST_BYTES", first)
    path = tmp_path / "values"
    path.write_bytes(
        struct.pack("<3I", 1, 2, 3) + b"".join(map(text, WORDS)) + b"\1\0" + text("end") + b"rest"
    )
    with open(path, "rb", buffering=0) as file:
        values = GGUFValues(file, path.stat().st_size, "it", 10_000)
        assert values.numbers(UINT32, 3) == [1, 2, 3]
        assert values.texts(len(WORDS)) == WORDS
        assert values.numbers(BOOL, 2) == [True, False]
        assert values.text() == "end"
        assert values.raw(4) == b"rest"
        with pytest.raises(ModelError, match=r"^it: is cut short"):
            values.raw(1)


def test_no_byte_is_read_twice_and_none_behind_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "values"
    path.write_bytes(b"".join(map(text, ["x" * 10_000] * 100)))
    places: list[tuple[int, int]] = []

    def watched(file: io.FileIO, offset: int, target: memoryview, subject: str) -> None:
        places.append((offset, offset + len(target)))
        read_into(file, offset, target, subject)

    monkeypatch.setattr(gguf_values, "read_into", watched)
    with open(path, "rb", buffering=0) as file:
        values = GGUFValues(file, path.stat().st_size, "it", 700_000)
        assert values.texts(50) == ["x" * 10_000] * 50
        assert values.text() == "x" * 10_000
        with pytest.raises(ModelError, match="more than 700,000 bytes"):
            values.texts(40)
    assert places[0][0] == 0 and places[-1][1] <= 700_000
    assert all(one[1] == following[0] for one, following in pairwise(places))
