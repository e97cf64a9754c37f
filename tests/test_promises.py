"""Ordinary tests measure no time: what a clock says depends on what else the machine does.

A time that is promised is measured by a test that is marked ``promise`` (see lolama_core.testing.promises).
Everything else holds what the time comes from, and waits for other processes as long as they may ever take.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 60.0  # seconds to wait for something before it counts as hanging
CLOCK = re.compile(
    r"\b(perf_counter|monotonic|process_time|thread_time|default_timer|time\.time|os\.times|ru_[us]time)\b"
)
# Files that read a clock, and what for. None of them holds it against anything.
CLOCKS = {
    "packages/lolama-cli/tests/patience.py": "the end of waiting",
    "packages/lolama-cli/tests/test_quantize.py": "the moments at which a process is killed",
    "packages/lolama-cli/tests/test_start_up.py": "processor time, for a promise",
    "packages/lolama-core/tests/test_imports.py": "the time of an import, for a promise",
    "packages/lolama-serve/tests/conftest.py": "the end of waiting",
    "packages/lolama-serve/tests/live_server.py": "the end of waiting",
    "tests/captures.py": "the end of a capture",
    "tests/test_promises.py": "the names of clocks",
}


def files_of_tests() -> Iterator[Path]:
    for folder in (*ROOT.glob("packages/*/tests"), ROOT / "tests"):
        yield from sorted(folder.rglob("*.py"))


def clocks(text: str) -> list[int]:
    """Lines that read a clock; one that puts another in its place does not."""
    lines = enumerate(text.splitlines(), start=1)
    return [number for number, line in lines if CLOCK.search(line) and "setattr(" not in line]


def short_waits(text: str) -> list[int]:
    """Lines that give up waiting within a minute."""
    found = []
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        given = [word.value for word in call.keywords if word.arg == "timeout"]
        if name in ("wait", "join", "wait_for"):
            given += call.args[-1:]
        found += [
            value.lineno
            for value in given
            if isinstance(value, ast.Constant)
            and isinstance(value.value, int | float)
            and value.value < LEAST
        ]
    return found


def test_no_ordinary_test_reads_a_clock_or_loses_patience() -> None:
    found = {}
    for path in files_of_tests():
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        lines = short_waits(text) + ([] if name in CLOCKS else clocks(text))
        if lines:
            found[name] = lines
    assert found == {}


def test_files_that_may_read_a_clock_do() -> None:
    for path in CLOCKS:
        assert clocks((ROOT / path).read_text(encoding="utf-8")), path


PLANTED = """
started = time.monotonic()
work()
assert time.monotonic() - started < 1
process.wait(5)
process.communicate(timeout=10)
monkeypatch.setattr("module.time.monotonic", clock)
process.wait(60)
"""


def test_what_is_planted_is_found() -> None:
    assert clocks(PLANTED) == [2, 4]
    assert short_waits(PLANTED) == [5, 6]


MEASURES = """
import pytest
from lolama_core.testing.promises import Promises

def test_unmarked(promises: Promises) -> None:
    pass

@pytest.mark.promise
def test_kept(promises: Promises) -> None:
    with promises.within(60, "nothing"):
        pass

@pytest.mark.promise
def test_broken(promises: Promises) -> None:
    promises.hold(1.0, "too much", 2.0)
"""


def test_promises_are_measured_apart_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "test_measures.py").write_text(MEASURES)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(tmp_path)]
    ordinary = subprocess.run(command, capture_output=True, text=True)
    assert "only a test that is marked `promise` may measure a time" in ordinary.stdout
    assert "2 deselected" in ordinary.stdout
    apart = subprocess.run([*command, "-m", "promise"], capture_output=True, text=True)
    assert "1 failed, 1 passed, 1 deselected" in apart.stdout
    assert "too much  took 2.000 s; promised are 1 s" in apart.stdout
    assert " s of 60 s  nothing" in apart.stdout
    assert "2.000 s of 1 s  too much" in apart.stdout
