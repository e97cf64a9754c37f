"""README's reading order is the path from a prompt to its text, with true counts of lines.

They may be off by a tenth; ``python tests/reading_path.py`` writes them anew. docs/reading.md leads through
one thing at a time, function by function.
"""

from __future__ import annotations

import ast
import re

import pytest
from tests.reading_path import CORE, FILES, MOST_LINES, ROW, SUM, code_lines, with_counts

README = CORE.parents[3] / "README.md"
ONE_THING = README.parent / "docs" / "reading.md"
MOST_LINES_OF_ALL_THINGS = 1200


def row_of(name: str) -> re.Match[str]:
    [row] = [row for row in ROW.finditer(README.read_text("utf-8")) if row["name"] == name]
    return row


def test_the_reference_comes_first_and_the_whole_path_follows() -> None:
    names = [row["name"] for row in ROW.finditer(README.read_text("utf-8"))]
    assert names[0] == "reference"
    assert sorted(names[1:]) == sorted(FILES)


def test_the_front_page_says_how_many_files_the_path_has() -> None:
    assert f"{len(FILES)} files more" in " ".join(README.read_text("utf-8").split())


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


def functions() -> list[tuple[str, str]]:
    """File and function, or class and method, of each row of docs/reading.md."""
    rows = [line for line in ONE_THING.read_text("utf-8").splitlines() if line.startswith("| ")]
    files = re.findall(r"`([\w/]+)`: ((?:`[\w.]+`(?:, )?)+)", "\n".join(rows[1:]))
    assert len(re.findall("`", "".join(rows[1:]))) == sum(
        2 + names.count("`") for _, names in files
    )
    return [(file, name) for file, names in files for name in re.findall(r"`([\w.]+)`", names)]


def lines_of(file: str, name: str) -> set[tuple[str, int]]:
    """The lines that one reads of a function."""
    scope: list[ast.stmt] = ast.parse((CORE / f"{file}.py").read_text("utf-8")).body
    found: ast.stmt | None = None
    for part in name.split("."):
        [found] = [
            node
            for node in scope
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part
        ]
        scope = found.body
    assert isinstance(found, ast.FunctionDef), f"{file}: {name} is no function"
    return {(file, line) for line in range(found.lineno, (found.end_lineno or 0) + 1)}


def test_what_leads_through_one_thing_is_there_and_short() -> None:
    read = {line for file, name in functions() for line in lines_of(file, name)}
    assert 500 < len(read) <= MOST_LINES_OF_ALL_THINGS
