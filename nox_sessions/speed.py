"""Times: of lolama beside its peers, and those that are promised."""

from __future__ import annotations

import os

import nox

from nox_sessions.environments import install
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group
from nox_sessions.running import RESULTS, run_tests


@nox.session
def bench(session: nox.Session) -> None:
    """Measure lolama beside its peers (minutes to hours; builds llama.cpp, so it needs a C++ compiler)."""
    install(session, *editable(PACKAGES), *group("bench"))
    arguments = session.posargs or ["--short"]
    session.run("python", "-m", "benchmarks.run", *arguments)


# What takes how long is a promise at these many random moments.
PROMISES = {"LOLAMA_INTERRUPTS": "100", "LOLAMA_LEAVES": "50"}


@nox.session
def promises(session: nox.Session) -> None:
    """Measure every time that is promised (a quarter of an hour, on a machine that does nothing else)."""
    requirements = sorted({r for package in PACKAGES for r in group("test", directory(package))})
    install(session, *editable(PACKAGES), *requirements)
    report = RESULTS / "promises.xml"
    # One at a time: no test may take another's seconds.
    arguments = ["-n", "0", "-m", "promise", f"--junitxml={report}"]
    numbers = {name: os.environ.get(name, number) for name, number in PROMISES.items()}
    run_tests(session, ROOT / "packages", requirements, numbers, arguments)
