"""A plugin of pytest that runs llama.cpp's tests of its server, unchanged, against ``lolama serve``.

`expected.toml` lists each case that does not pass, with the reason. One that passes all the same fails the
run, as one that fails and is not listed does.
"""

from __future__ import annotations

import importlib
import os
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent

SKIPPED = "skipped by the suite itself"


def expected(path: Path = FOLDER / "expected.toml") -> dict[str, str]:
    """Case → why it does not pass.

    Raises:
        ValueError: for a case that is listed twice.
    """
    found: dict[str, str] = {}
    for group in tomllib.loads(path.read_text(encoding="utf-8"))["reason"]:
        for case in group["cases"]:
            if case in found:
                raise ValueError(f"{case} is listed twice")
            found[case] = group["why"]
    return found


def case_of(nodeid: str) -> str:
    """``test_basic.py::test_no_ui`` for ``unit/test_basic.py::test_no_ui``."""
    return nodeid.rpartition("unit/")[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", type=Path, help="a Markdown page to write the results to")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("LLAMA_SERVER_BIN_PATH", str(FOLDER / "llama_server.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = expected()
    for item in items:
        why = known.get(case_of(item.nodeid))
        if why is not None:
            item.add_marker(pytest.mark.xfail(reason=why, strict=True))


@pytest.fixture(scope="session", autouse=True)
def _one_preset() -> None:
    """Try the one model that is here before all tests; the suite would try all that its tests ask for."""
    utils: Any = importlib.import_module("utils")  # of the suite

    def load_all() -> None:
        server = utils.ServerPreset.tinyllama2()
        server.start()
        server.stop()

    utils.ServerPreset.load_all = load_all


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = outcomes(terminalreporter.stats)
    page = written(found)
    terminalreporter.write_line(page)
    place = config.getoption("--page")
    if place is not None and not any(outcome == "failed" for outcome, _ in found.values()):
        place.write_text(page, encoding="utf-8")


def outcomes(stats: Mapping[str, Sequence[Any]]) -> dict[str, tuple[str, str]]:
    """Case → how it went, and why it did not pass.

    Args:
        stats: The reports of pytest's terminal reporter, by outcome.
    """
    found: dict[str, tuple[str, str]] = {}
    for outcome in ("passed", "xfailed", "skipped", "failed", "error"):
        for report in stats.get(outcome, ()):
            case = case_of(report.nodeid)
            if outcome == "passed":
                found[case] = "passed", ""
            elif outcome == "xfailed":
                found[case] = "xfailed", report.wasxfail
            elif outcome == "skipped":
                found[case] = "skipped", SKIPPED
            else:
                found[case] = "failed", ""
    return found


def written(found: Mapping[str, tuple[str, str]]) -> str:
    """The page about these outcomes."""
    files: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, list[str]] = defaultdict(list)
    for case, (outcome, why) in found.items():
        files[case.partition("::")[0]][outcome] += 1
        if why:
            reasons[why].append(case)
    total = sum(files.values(), Counter())
    lines = [
        "# llama.cpp's tests of its server",
        "",
        "`python3 noxfile.py -s llama-cpp-server-tests` runs the tests that llama.cpp has for its own",
        "server against `lolama serve`, unchanged, with the model stories260K, and makes this page.",
        f"{total['passed']} cases pass, and {total.total() - total['passed']} do not:",
        "",
        "| file | passes | does not |",
        "|---|---|---|",
    ]
    for file in sorted(files):
        good = files[file]["passed"]
        lines.append(f"| {file} | {good} | {files[file].total() - good} |")
    lines += ["", "## What does not pass, and why", "", "| reason | cases |", "|---|---|"]
    for why, cases in sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        lines.append(f"| {why} | {len(cases)} |")
    for why, cases in sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        lines += ["", f"### {why[:1].upper()}{why[1:]}", ""]
        lines += [f"- `{case}`" for case in sorted(cases)]
    return "\n".join(lines) + "\n"
