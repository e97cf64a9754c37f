"""How the sessions run pytest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import nox

from nox_sessions.environments import install
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group

RESULTS = ROOT / "results"

# Tests never reach the network, and pytest's own workers are the parallelism. Threads of a test wait for each
# other asleep: where they spin, two workers on two cores take ten times as long.
TEST_ENV = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
}


def run_tests(
    session: nox.Session,
    tests: Path | Iterable[Path],
    requirements: list[str],
    env: Mapping[str, str] | None = None,
    arguments: Iterable[str] = (),
) -> None:
    """Run pytest, on several cores where the tests have asked for pytest-xdist."""
    parallel = any(requirement.startswith("pytest-xdist") for requirement in requirements)
    # Neighbors stay together, so that few fixtures of a module are made twice.
    several = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "worksteal"]
    workers = several if parallel else []
    config = str(ROOT / "pyproject.toml")
    session.run(
        "pytest",
        "-c",
        config,
        *workers,
        *arguments,
        *map(str, [tests] if isinstance(tests, Path) else tests),
        *session.posargs,
        env={**TEST_ENV, **(env or {})},
    )


def run_long(
    session: nox.Session, runs: dict[str, dict[str, str]], arguments: Iterable[str] = ()
) -> None:
    """Run each file of tests with the numbers that make it long, and leave reports for `fault_table`.

    A number that the environment states already stays: ``LOLAMA_FUZZ_CASES=100`` makes a short run.
    """
    requirements = {r for package in PACKAGES for r in group("test", directory(package))}
    install(session, *editable(PACKAGES), *sorted(requirements))
    for tests, numbers in runs.items():
        numbers = {name: os.environ.get(name, number) for name, number in numbers.items()}
        name = session.name.partition("(")[0]
        report = RESULTS / f"{name}-{Path(tests).stem}.xml"
        # A test of hours does not hang.
        options = [f"--junitxml={report}", "-o", "faulthandler_timeout=0", *arguments]
        run_tests(session, ROOT / tests, sorted(requirements), numbers, options)
