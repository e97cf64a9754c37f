"""Makes docs/faults.md and docs/serve-requirements.md of what tests reported.

    pytest … --junitxml=results/faults-1.xml       (as often as it takes; long runs too)
    python tests/fault_table.py results/*.xml

The rows are in fault_rows.toml and serve_requirements.toml; a test belongs to those whose numbers its name
bears: ``test_row_28_…``, ``test_requirement_03_…``. A long run that no report tells of, or only its short
variant, keeps its line.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "faults.md"
REQUIREMENTS = HERE.parent / "docs" / "serve-requirements.md"
_NUMBERS = r"s?_?(\d+(?:_(?:to_|and_)?\d+)*)(?=_|$|\[)"

HEAD = """# Faults, and what comes of them

Every way in which lolama is known to be let down by a network, a disk, a file or a user, by number, and what
has to come of it. A number under "must get" is an exit code: 2 usage, 3 model or picture, 4 network,
5 authorization, 6 disk or memory, 130 Ctrl-C, 141 closed pipe. Whatever is refused is refused with one line
on standard error that says what, why and what to do; in Python with a typed error of the same words.

This page is made by `tests/fault_table.py` of what the tests reported; `python3 noxfile.py -s fault_table`
runs them and makes it anew. A row without a test is not known to hold. Times count on a machine that does
nothing else; `python3 noxfile.py -s promises` measures them.
"""


REQUIREMENTS_HEAD = """# What a server has to do

What users of other servers of language models asked for, ran into or were harmed by, the most important
first, and the tests that hold [lolama serve](serve.md) to it. A source is an issue of the GitHub repository
named before it, a CVE, or a test of the server named. [Faults](faults.md#the-server) has what else can go
wrong, by number.

This page is made by `tests/fault_table.py` of what the tests reported; `python3 noxfile.py -s fault_table`
runs them and makes it anew. A line without a test is not known to hold.
"""


RUNS = """## Long runs

Each with the seeds it went through. `python3 noxfile.py -s fuzz` and `python3 noxfile.py -s faults` run them;
CONTRIBUTING.md names the parts of `fuzz`, such as `fuzz(files)`, that can be run alone.
A variable that is set replaces the session's own number: `LOLAMA_FUZZ_FIRST=1234 LOLAMA_FUZZ_CASES=1` replays
a damaged file, `LOLAMA_FAULT_FIRST` and `LOLAMA_FAULT_SCRIPTS` a script of faults, and `LOLAMA_FIRST` with
`LOLAMA_KILLS`, `LOLAMA_ROUNDS` or `LOLAMA_INTERRUPTS` the others.

| what | how many | seeds | last run |
|---|---|---|---|
"""


@dataclass
class Result:
    """What the tests of one row reported."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    places: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        if not self.passed + self.failed + self.skipped:
            return "no test"
        parts = [(self.passed, "passed"), (self.failed, "**FAILED**"), (self.skipped, "skipped")]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def rows_of(name: str, word: str = "row") -> set[int]:
    """The numbers in a test's name: ``test_rows_22_and_65_…``, ``test_rows39_to_53_…``."""
    found: set[int] = set()
    for match in re.finditer(word + _NUMBERS, name.partition("[")[0]):
        last = 0
        for link, digits in re.findall(r"(to_)?(\d+)", match[1]):
            found |= set(range(last if link else int(digits), int(digits) + 1))
            last = int(digits)
    return found


def read(
    paths: Iterable[Path], word: str = "row"
) -> tuple[dict[int, Result], dict[str, list[tuple[int, int, str]]]]:
    """Number → result, and what long runs went through: description → (first seed, last seed, date).

    Args:
        paths: Reports of pytest.
        word: What stands before the numbers in the names of tests.
    """
    rows: dict[int, Result] = defaultdict(Result)
    runs: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for case, date in (case for path in paths for case in _cases(path)):
        name = case.get("name", "")
        outcome = {child.tag for child in case}
        failed = bool(outcome & {"failure", "error"})
        skipped = "skipped" in outcome
        for row in rows_of(name, word):
            result = rows[row]
            result.failed += failed
            result.skipped += skipped and not failed
            result.passed += not failed and not skipped
            result.places.add(_place(case.get("classname", "")))
        for entry in case.iter("property"):
            seeds = re.fullmatch(r"(\d+) to (\d+)", entry.get("value", ""))
            if seeds and not failed:
                runs[entry.get("name", "")].append((int(seeds[1]), int(seeds[2]), date))
    return rows, runs


def _cases(path: Path) -> Iterator[tuple[ElementTree.Element, str]]:
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            yield case, suite.get("timestamp", "")[:10]


def _place(classname: str) -> str:
    """``packages.lolama-cli.tests.test_faults_hub`` → ``lolama-cli: test_faults_hub``."""
    parts = classname.split(".")
    module = next((part for part in reversed(parts) if part.startswith("test_")), parts[-1])
    package = next((part for part in parts if part.startswith("lolama-")), "tests")
    return f"{package}: {module}"


def page(
    rows: dict[int, Result], runs: dict[str, list[tuple[int, int, str]]], before: str = ""
) -> str:
    """The text of docs/faults.md; ``before`` is what it was."""
    table = tomllib.loads((HERE / "fault_rows.toml").read_text("utf-8"))
    lines = [HEAD, f"Python {platform.python_version()} on {platform.system()}.", ""]
    for part in table["part"]:
        lines += [
            f"## {part['title']}",
            "",
            "| | what | must get | tests | where |",
            "|---|---|---|---|---|",
        ]
        for number, what, outcome in part["rows"]:
            result = rows.get(number, Result())
            where = ", ".join(sorted(result.places))
            lines.append(f"| {number} | {_cell(what)} | {_cell(outcome)} | {result} | {where} |")
        lines.append("")
    table_of_runs = {**_runs_of(before)}
    for what, parts in runs.items():
        seeds = {seed for first, last, _ in parts for seed in range(first, last + 1)}
        date = max(date for _, _, date in parts)
        if len(seeds) >= table_of_runs.get(what, (0, ""))[0]:
            line = f"| {what} | {len(seeds):,} | {min(seeds)} to {max(seeds)} | {date} |"
            table_of_runs[what] = len(seeds), line
    if table_of_runs:
        lines.append(
            RUNS + "\n".join(table_of_runs[what][1] for what in sorted(table_of_runs)) + "\n"
        )
    return "\n".join(lines)


def requirements_page(results: dict[int, Result]) -> str:
    """The text of docs/serve-requirements.md."""
    table = tomllib.loads((HERE / "serve_requirements.toml").read_text("utf-8"))
    lines = [REQUIREMENTS_HEAD, f"Python {platform.python_version()} on {platform.system()}.", ""]
    lines += ["| | what | from | tests | where |", "|---|---|---|---|---|"]
    for number, what, source in table["rows"]:
        result = results.get(number, Result())
        where = ", ".join(sorted(result.places))
        lines.append(f"| {number} | {_cell(what)} | {_cell(source)} | {result} | {where} |")
    return "\n".join([*lines, ""])


def _runs_of(text: str) -> dict[str, tuple[int, str]]:
    """Description → how many, and the line, of the long runs on a page."""
    found = re.finditer(r"^\| ([^|]+) \| ([\d,]+) \| \d+ to \d+ \| [\d-]+ \|$", text, re.MULTILINE)
    return {match[1]: (int(match[2].replace(",", "")), match[0]) for match in found}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write both pages; ends with 1 if any test failed."""
    reports = [*map(Path, sys.argv[1:])]
    rows, runs = read(reports)
    requirements, _ = read(reports, "requirement")
    REQUIREMENTS.write_text(requirements_page(requirements), encoding="utf-8")
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(rows, runs, before), encoding="utf-8")
    sys.exit(any(one.failed for one in (*rows.values(), *requirements.values())))


if __name__ == "__main__":
    main()
