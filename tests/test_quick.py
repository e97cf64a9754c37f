"""The session ``quick`` of the noxfile stays quick: no processes, no files damaged at random."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTS_PROCESSES = re.compile(r"\b(subprocess|run_in_child|multiprocessing|os\.fork)\b")


def constants(*names: str) -> list[list[str]]:
    """What is assigned to names in the noxfile, which only nox can import; of a dictionary the keys."""
    module = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    found = {
        target.id: [*ast.literal_eval(statement.value)]
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in names
    }
    return [found[name] for name in names]


QUICK, NOT_QUICK, FAULTS = constants("QUICK", "NOT_QUICK", "FAULTS")


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
