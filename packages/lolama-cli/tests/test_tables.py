"""Facts in columns, as a person sees them."""

from __future__ import annotations

import pytest

from lolama_cli.tables import _print_facts


def test_a_path_is_in_one_piece_and_all_else_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/home/someone/" + "long/" * 10
    _print_facts([("int8 linears", "42"), ("saved in", path), ("weights", "half of it, " * 4)])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "int8 linears  42",
        f"saved in      {path}",
        "weights       half of it, half of it,",
        "              half of it, half of it,",
    ]


def test_three_columns_stay_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    _print_facts([("a", "x" * 30, "c")])
    assert all(len(line) <= 20 for line in capsys.readouterr().out.splitlines())
