"""Style, types, the arrows between packages and the metadata."""

from __future__ import annotations

import nox

from nox_sessions.environments import install, pip_settings_for_uv
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, the arrows between packages, their metadata, and the workflows."""
    folders = (ROOT, *map(directory, PACKAGES))
    test_requirements = sorted({name for folder in folders for name in group("test", folder)})
    install(session, *editable(PACKAGES), *group("lint"), *test_requirements)
    sources = [str(path) for path in ROOT.glob("packages/*/src")]
    build_hooks = [str(path) for path in ROOT.glob("packages/*/hatch_build.py")]
    metadata = [str(path) for path in ROOT.glob("packages/*/pyproject.toml")]
    commands = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        [
            "mypy",
            "noxfile.py",
            "nox_sessions",
            "conftest.py",
            "benchmarks",
            "training",
            "tests",
            *sources,
            *build_hooks,
        ],
        # One by one: test modules of different packages may share a name.
        *(["mypy", str(directory(package) / "tests")] for package in PACKAGES),
        ["basedpyright"],
        ["lint-imports"],
        ["validate-pyproject", *metadata],
        ["zizmor", "--offline", "--quiet", ".github"],
    ]
    failed = []
    for command in commands:  # all of them, so that one run tells all
        try:
            session.run(*command)
        except nox.command.CommandFailed:
            failed.append(" ".join(command[:2]))
    if failed:
        session.error("failed: " + ", ".join(failed))


@nox.session
def format(session: nox.Session) -> None:
    """Mend what ruff can mend, and format."""
    session.install(*group("lint"), env=pip_settings_for_uv())
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")
