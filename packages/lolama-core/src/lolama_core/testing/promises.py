"""Promises of time: the most that an action may take, measured apart from all other tests.

A time says something only of a machine that does nothing else meanwhile. So a test that measures one is
marked ``promise``, and ordinary runs leave it out; they hold what the time comes from, which no load changes.
``pytest -m promise`` runs those tests, and prints each time beside its promise:

    @pytest.mark.promise
    def test_row_68_bombs_are_refused_in_little_time(promises: Promises) -> None:
        with promises.within(0.1, "a bomb"):
            ...

This is a plugin of pytest, which the settings of the repository load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


class Promises:
    """Measures times and holds them against what is promised.

    Attributes:
        slowest: What was measured → its longest time so far, and the most it may take, in seconds.
    """

    def __init__(self) -> None:
        self.slowest: dict[str, tuple[float, float]] = {}

    def hold(self, most: float, what: str, took: float, case: object = "") -> None:
        """Check a time.

        Args:
            most: Seconds it may take.
            what: What was measured, for the report, which has the slowest of all cases.
            took: Seconds it took.
            case: Which of them it was, for a failure.
        """
        before, _ = self.slowest.get(what, (0.0, most))
        self.slowest[what] = max(before, took), most
        assert took <= most, f"{what} {case} took {took:.3f} s; promised are {most:g} s"

    @contextmanager
    def within(self, most: float, what: str, case: object = "") -> Iterator[None]:
        """Check how long a block takes; see `hold`."""
        started = time.perf_counter()
        yield
        self.hold(most, what, time.perf_counter() - started, case)

    def best_of(self, tries: int, most: float, what: str, run: Callable[[], object]) -> None:
        """Check the shortest of some calls; see `hold`."""
        times = []
        for _ in range(tries):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        self.hold(most, what, min(times))


@pytest.fixture
def promises(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Promises]:
    """Measures times, for tests that are marked ``promise`` and for no others."""
    if request.node.get_closest_marker("promise") is None:
        pytest.fail("only a test that is marked `promise` may measure a time", pytrace=False)
    measured = Promises()
    yield measured
    for what, (took, most) in measured.slowest.items():
        record_property(what, f"{took:.3f} s of {most:g} s")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "promise: measures a time; `pytest -m promise` runs these")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every time beside its promise."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    times = {
        (what, took)
        for report in reports
        if getattr(report, "when", "") == "teardown" and "promise" in report.keywords
        for what, took in report.user_properties
    }
    if times:
        terminalreporter.section("promises: the slowest of each")
        for what, took in sorted(times):
            terminalreporter.line(f"{took:>22}  {what}")
