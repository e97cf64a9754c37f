"""The session ``quick`` of nox stays quick: no processes, no files damaged at random."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTS_PROCESSES = re.compile(r"\b(subprocess|run_in_child|multiprocessing|os\.fork)\b")


def constant(file: str, name: str) -> list[str]:
    """What a file that only nox can import assigns to a name; the keys of a dictionary."""
    module = ast.parse((ROOT / "nox_sessions" / file).read_text(encoding="utf-8"))
    [value] = (
        statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id == name
    )
    return [*ast.literal_eval(value)]


QUICK, NOT_QUICK = constant("unit_tests.py", "QUICK"), constant("unit_tests.py", "NOT_QUICK")
FAULTS = constant("long_runs.py", "FAULTS")


def files_of(places: list[str]) -> set[Path]:
    for place in places:
        assert (ROOT / place).exists(), place
    paths = [ROOT / place for place in places]
    return {
        test for path in paths for test in ([path] if path.is_file() else path.rglob("test_*.py"))
    }


def test_nothing_quick_starts_a_process_or_has_a_long_run() -> None:
    quick = files_of(QUICK) - files_of(NOT_QUICK)
    assert len(quick) > 20
    slow = {path for path in quick if STARTS_PROCESSES.search(path.read_text(encoding="utf-8"))}
    assert slow == set()
    assert quick & files_of(FAULTS) == set()
    assert {path for path in quick if "fuzz" in path.name} == set()


def test_what_is_left_out_would_be_there_otherwise() -> None:
    assert files_of(NOT_QUICK) <= files_of(QUICK)
