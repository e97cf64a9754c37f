"""README's reading order is the path from a prompt to its text, with true counts of lines.

They may be off by a tenth; ``python tests/reading_path.py`` writes them anew.
"""

from __future__ import annotations

import re

import pytest
from tests.reading_path import CORE, FILES, MOST_LINES, ROW, SUM, code_lines, with_counts

README = CORE.parents[3] / "README.md"


def row_of(name: str) -> re.Match[str]:
    [row] = [row for row in ROW.finditer(README.read_text("utf-8")) if row["name"] == name]
    return row


def test_the_reference_comes_first_and_the_whole_path_follows() -> None:
    names = [row["name"] for row in ROW.finditer(README.read_text("utf-8"))]
    assert names[0] == "reference"
    assert sorted(names[1:]) == sorted(FILES)


@pytest.mark.parametrize("name", ["reference", *FILES])
def test_a_file_has_about_the_lines_that_the_table_says(name: str) -> None:
    row, path = row_of(name), CORE / f"{name}.py"
    assert README.parent / row["link"] == path
    source = path.read_text("utf-8")
    assert int(row["code"]) == pytest.approx(code_lines(source), rel=0.1, abs=5)
    assert int(row["all"]) == pytest.approx(source.count("\n"), rel=0.1, abs=5)


@pytest.mark.parametrize("column", ["code", "all"])
def test_the_sum_is_that_of_the_rows(column: str) -> None:
    page = README.read_text("utf-8")
    [total] = SUM.finditer(page)
    assert int(total[column].replace(",", "")) == sum(
        int(row[column]) for row in ROW.finditer(page)
    )


def test_the_counts_are_written_into_the_table() -> None:
    page = "text\n| [`model/norm`](a/b.py) | 1 | 2 | the norm |\n| together | 1 | 2 | |\n"
    source = (CORE / "model" / "norm.py").read_text("utf-8")
    code, lines = code_lines(source), source.count("\n")
    assert with_counts(page) == (
        f"text\n| [`model/norm`](a/b.py) | {code} | {lines} | the norm |\n"
        f"| together | {code} | {lines} | |\n"
    )


def test_it_is_read_in_an_evening() -> None:
    """Without the reference, which comes before it."""
    sources = [(CORE / f"{name}.py").read_text("utf-8") for name in FILES]
    assert sum(map(code_lines, sources)) <= MOST_LINES
