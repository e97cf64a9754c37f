from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.start import Start, imports_torch, measure, programs, start
from benchmarks.tables import ratio_cell, start_table

from benchmarks import start as module


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LOLAMA_HOME": str(tmp_path)}


def python(label: str, code: str, ends: int = 0) -> Start:
    return Start(label, ("-c", code), ends)


def test_a_start_is_run_to_its_end_with_the_code_that_it_has_to_have(env: dict[str, str]) -> None:
    block = "held = bytearray(1 << 26); import os; open('seen', 'a').write('x'); os._exit(2)"
    seconds, read, peak = start(python("a", block, 2), env)
    assert seconds > 0 and read >= 0 and peak > 1 << 26
    assert (Path(env["LOLAMA_HOME"]) / "seen").read_text() == "x"
    with pytest.raises(SystemExit, match="b: ended with 2, not 0"):
        start(python("b", block), env)


def test_the_interpreter_tells_whether_torch_is_imported(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "torchlike.py").touch()
    assert imports_torch(python("a", "import torch"), env)
    assert not imports_torch(python("b", "import torchlike"), env)


def test_every_round_has_all_programs_cold_and_then_warm(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def fake(program: Start, _: object) -> tuple[float, int, int]:
        log.append(program.label)
        return 0.5, 4096, 1000 + len(log)

    monkeypatch.setattr(module, "start", fake)
    monkeypatch.setattr(module, "drop_from_memory", lambda _: log.append("drop"))
    monkeypatch.setattr(os, "posix_fadvise", None, raising=False)
    found = [python("a", "pass"), python("b", "pass")]
    measure(found, 2, env)
    assert log == ["drop", "a", "drop", "b", "a", "b", "a", "b"] * 2
    assert [len(one.cold) for one in found] == [len(one.warm) for one in found] == [2, 2]
    assert found[0].read == [4096, 4096] and found[1].peak == 1016


def test_a_start_that_reads_nothing_was_not_cold(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(folders: Sequence[str]) -> None:
        assert folders

    monkeypatch.setattr(module, "start", lambda program, env: (0.5, 0, 1))
    monkeypatch.setattr(module, "drop_from_memory", dropped)
    monkeypatch.setattr(os, "posix_fadvise", None, raising=False)
    with pytest.raises(SystemExit, match="nothing came from the disk"):
        measure([python("a", "pass")], 1, env)


def test_what_is_started_begins_with_torch_and_ends_with_a_first_token() -> None:
    labels = [program.label for program in programs()]
    assert labels[0] == 'python -c "import torch"'
    assert labels[-1] == "lolama generate -m demo --max-tokens 1 x"
    assert [program.code for program in programs() if "nosuch" in program.label] == [2]


def test_a_ratio_is_that_of_medians_with_the_least_and_the_greatest() -> None:
    # Medians 2 and 4; rounds 1/8, 2/4 and 9/3.
    assert ratio_cell([1.0, 2.0, 9.0], [8.0, 4.0, 3.0]) == "0.50 (0.12 to 3.00)"


def test_a_table_of_starts() -> None:
    torch = Start("python x", (), torch=True, warm=[4.0, 2.0], cold=[8.0, 8.0], read=[3, 10**8])
    help_ = Start("lolama --help", (), warm=[0.3, 0.3], peak=25_600_000)
    result = {
        "date": "2026-01-02",
        "processor": "Some CPU",
        "versions": {"torch": "2.13.0"},
        "starts": [vars(torch), vars(help_)],
    }
    lines = start_table(result).splitlines()
    assert lines[:2] == ["2 rounds, 2026-01-02, on Some CPU.", "Versions: torch 2.13.0."]
    assert lines[-2:] == [
        "| `python x` | imported | 3.00 | 1.00 (1.00 to 1.00) | 8.00 | 1.00 (1.00 to 1.00) | 50.0 | 0 |",
        "| `lolama --help` |  | 0.30 | 0.10 (0.07 to 0.15) |  |  |  | 25.6 |",
    ]
