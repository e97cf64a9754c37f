from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.versions import ROWS, Version, contestants, differences, interval, pairs


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    """Tables of the sign test have these: the 6th and the 15th of 20, the least and the greatest of 6."""
    assert interval([float(n) for n in range(20, 0, -1)]) == (6.0, 15.0)
    assert interval([float(n) for n in range(1, 26)]) == (8.0, 18.0)
    assert interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)
    assert interval([2.0, 1.0, 3.0]) == (1.0, 3.0)
    assert interval([7.0]) == (7.0, 7.0)


def test_pairs_change_their_order_and_tell_how_much_faster() -> None:
    order: list[str] = []

    def takes(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    job = (lambda: takes("this", 2.0), lambda: takes("other", 3.0))
    rows = pairs({"one job": job, "none": (lambda: 0.0, lambda: 0.0)}, 3, ["job"])
    before = ["this", "other"]
    assert order == [*before, "other", "this", "this", "other", "other", "this"]
    assert rows == [["one job", "1.500", "1.500 to 1.500"]]


def saying(folder: Path, name: str, what: dict[str, object]) -> Version:
    """A version whose interpreter says that, whatever it is told to run."""
    python = folder / name
    python.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(what))})\n")
    python.chmod(0o700)
    return Version(str(python), folder)


def test_differences_are_named(tmp_path: Path) -> None:
    this = saying(tmp_path, "this", {"greedy": [1, 2], "score": "ab", "hot": None})
    other = saying(tmp_path, "other", {"greedy": [1, 3], "score": "ab", "hot": None})
    assert differences(this, this) == (3, [])
    assert differences(this, other) == (3, ["greedy"])
    with pytest.raises(AssertionError):
        differences(this, saying(tmp_path, "less", {"greedy": [1, 2]}))


def test_every_row_has_one_contestant_of_its_weights() -> None:
    assert tuple(each.label for each in contestants()) == ROWS
    layouts = [each.layout for each in contestants()]
    assert layouts == ["hf-bf16", "hf-bf16", "int8-kept", "int4-kept"]


def test_another_version_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        Version(sys.executable, tmp_path).run("-c", "raise SystemExit(3)")
