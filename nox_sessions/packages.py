"""The packages of this repository, and what they say of themselves."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = (
    "lolama-core",
    "lolama-vision",
    "lolama-quant",
    "lolama-hub",
    "lolama-serve",
    "lolama-cli",
)


def directory(package: str) -> Path:
    """Where a distribution lives."""
    return ROOT / "packages" / package


@functools.cache
def pyproject(folder: Path) -> dict[str, Any]:
    """A parsed pyproject.toml."""
    return nox.project.load_toml(folder / "pyproject.toml")


def group(name: str, folder: Path = ROOT) -> list[str]:
    """The requirements in a dependency group."""
    return list(nox.project.dependency_groups(pyproject(folder), name))


def import_names(package: str) -> list[str]:
    """The top-level modules that a distribution ships."""
    return sorted(path.parent.name for path in directory(package).glob("src/*/__init__.py"))


def with_siblings(package: str) -> list[str]:
    """A package and the lolama packages it declares, directly or through another."""
    found: set[str] = set()
    pending = [package]
    while pending:
        name = pending.pop()
        found.add(name)
        requirements = pyproject(directory(name))["project"]["dependencies"]
        declared = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        pending += declared.intersection(PACKAGES) - found
    return [name for name in PACKAGES if name in found]


def editable(packages: Iterable[str]) -> list[str]:
    """Arguments that install packages from their folders, so that an edit needs no new install."""
    return [argument for package in packages for argument in ("-e", str(directory(package)))]
