from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.fault_table import PAGE, REQUIREMENTS, page, read, requirements_page, rows_of


def test_numbers_in_names() -> None:
    assert rows_of("test_row_06_too_many_requests") == {6}
    assert rows_of("test_row47_row48_sizes_are_positive[x-row_3]") == {47, 48}
    assert rows_of("test_rows28_to_30_and_36_x") == {28, 29, 30, 36}
    assert rows_of("test_rows_25_45_and_51_a_whole_run") == {25, 45, 51}
    assert rows_of("test_row_88_output_and_row_89_piped") == {88, 89}
    assert rows_of("test_row_37_a_header_of_300_000_tensors") == {37}
    assert rows_of("test_rowdy_10") == set()
    assert rows_of("test_requirement_07_in_row_3", "requirement") == {7}


def test_a_page_tells_what_passed_failed_and_is_missing(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite timestamp="2026-11-25T10:00:00">'
        '<testcase classname="packages.lolama-hub.tests.test_x" name="test_row_01_a"/>'
        '<testcase classname="tests.test_y" name="test_row_01_b"><failure/></testcase>'
        '<testcase classname="tests.test_y" name="test_rows_02_to_03"><properties>'
        '<property name="kills" value="0 to 9"/></properties></testcase>'
        "</testsuite></testsuites>"
    )
    text = page(*read([report]))
    first = next(line for line in text.splitlines() if line.startswith("| 1 |"))
    assert "1 passed, 1 **FAILED**" in first
    assert "lolama-hub: test_x, tests: test_y" in first
    assert "| 3 | gated, token without access | 5, with the page to ask on | 1 passed |" in text
    assert "| kills | 10 | 0 to 9 | 2026-11-25 |" in text
    assert next(line for line in text.splitlines() if line.startswith("| 92 |")).count("no test")


def test_requirements_have_a_page_of_their_own(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite timestamp="2026-11-25T10:00:00">'
        '<testcase classname="packages.lolama-serve.tests.test_x" name="test_requirement_01_a[1]"/>'
        '<testcase classname="packages.lolama-serve.tests.test_x" name="test_requirement_01_b">'
        '<failure/></testcase><testcase classname="tests.test_y" name="test_row_02_c"/>'
        "</testsuite></testsuites>"
    )
    lines = requirements_page(read([report], "requirement")[0]).splitlines()
    first = next(line for line in lines if line.startswith("| 1 |"))
    assert "1 passed, 1 **FAILED** | lolama-serve: test_x |" in first
    assert "| no test |" in next(line for line in lines if line.startswith("| 2 |"))
    assert sum(line[2:3].isdigit() for line in lines) == 25


def test_long_runs_keep_their_lines_until_runs_as_long_replace_them() -> None:
    long_ago = page({}, {"kills": [(0, 49, "2026-01-01")], "fuzz": [(0, 9, "2026-01-01")]})
    text = page({}, {"kills": [(0, 1, "2026-01-02")], "fuzz": [(10, 29, "2026-01-02")]}, long_ago)
    assert "| kills | 50 | 0 to 49 | 2026-01-01 |" in text
    assert "| fuzz | 20 | 10 to 29 | 2026-01-02 |" in text
    assert text.count("| kills |") == text.count("| fuzz |") == 1


RESULT = re.compile(r"(?m)^(\| \d+ \| .*) \| (no test|[^|]*) \| ([^|]*) \|$")


@pytest.mark.parametrize("path", [PAGE, REQUIREMENTS], ids=lambda path: path.stem)
def test_a_page_has_the_lines_of_its_table_and_a_result_for_each(path: Path) -> None:
    """What the results are, only a run of all tests can say; `fault_table` of the noxfile makes one."""
    text = path.read_text(encoding="utf-8")
    made = page({}, {}, text) if path == PAGE else requirements_page({})
    without = [RESULT.sub(r"\1", each) for each in (text, made)]
    without = [re.sub(r"(?m)^Python [\d.]+ on \w+\.$", "", each) for each in without]
    assert without[0] == without[1], "make it anew: python3 noxfile.py -s fault_table"
    results = [match[2] for match in RESULT.finditer(text)]
    assert [one for one in results if "FAILED" in one or one == "no test"] == []
    assert len(results) >= 25
