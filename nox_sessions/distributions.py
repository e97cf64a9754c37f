"""The wheels of the packages: built, checked, and each tested in an environment of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

from nox_sessions.environments import install, pip_settings_for_uv
from nox_sessions.packages import PACKAGES, ROOT, directory, group, import_names, with_siblings
from nox_sessions.running import run_tests

DIST = ROOT / "dist"


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution into dist/ and check what is in it."""
    session.install(*group("wheels"), env=pip_settings_for_uv())
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        # The wheel is made from the source archive, which shows that the archive is complete.
        arguments = ["--no-isolation", "--outdir", str(DIST), str(directory(package))]
        session.run("python", "-m", "build", *arguments, silent=True)
        toplevel = ",".join(import_names(package))
        session.run("check-wheel-contents", "--toplevel", toplevel, str(wheel(package)))
    session.run("twine", "check", "--strict", *map(str, sorted(DIST.iterdir())))


def wheel(package: str) -> Path:
    """The built wheel of a package."""
    (path,) = DIST.glob(f"{package.replace('-', '_')}-*.whl")
    return path


@nox.session(reuse_venv=False, requires=["wheels"])
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def alone(session: nox.Session, package: str) -> None:
    """Install a package's wheel in a fresh environment, with what it declares, and test it there."""
    expected = with_siblings(package)
    install(session, *map(wheel, expected))
    # Before pytest and the oracle bring more: every module must import with what is declared.
    session.run("python", "-I", "-c", IMPORT_EVERYTHING, *import_names(package), log=False)
    requirements = group("test", directory(package))
    session.install(*requirements, env=pip_settings_for_uv())
    installed = session.run("python", "-I", "-c", LIST_LOLAMA, silent=True, log=False)
    if (installed or "").split() != sorted(expected):
        session.error(f"{package} declares {expected} but the environment has {installed}")
    session.chdir(session.create_tmp())
    run_tests(session, directory(package) / "tests", requirements)


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        # A __main__ is a program; suites of tests need pytest, which whoever runs them has; Triton comes with
        # a torch for GPUs.
        skipped = ("__main__", "lolama_core.testing", "triton.kernels")
        if not any(part in module.name for part in skipped):
            importlib.import_module(module.name)
    print(name, "imports with what it declares, from", *package.__path__)
"""

LIST_LOLAMA = """
from importlib.metadata import distributions
names = {distribution.name for distribution in distributions()}
print(*sorted(name for name in names if name.startswith("lolama")))
"""
