"""What the installed packages provide, found through their entry points.

Nothing is imported before it is asked for, and a package that is not installed is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from lolama_core.protocols import ModelFamily, ModelSource, Quantizer
from lolama_core.protocols.errors import NotAvailableError


def families() -> Iterator[ModelFamily]:
    """The model families, core's first: it is the one that is always there."""
    found = entry_points(group="lolama.families")
    for entry in sorted(found, key=lambda entry: (entry.name != "llama", entry.name)):
        yield cast(ModelFamily, entry.load()())


def family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        NotAvailableError: if no installed package has it.
    """
    entry = _entry("lolama.families", name, "no installed package builds this kind of model")
    return cast(ModelFamily, entry.load()())


def source() -> ModelSource:
    """Where models that are no lolama checkpoints come from.

    Raises:
        NotAvailableError: if lolama-hub is not installed.
    """
    entry = _entry("lolama.sources", "huggingface", "lolama-hub is not installed")
    return cast(ModelSource, entry.load()())


def quantizer(name: str = "int8") -> Quantizer:
    """The quantizer of that name.

    Raises:
        NotAvailableError: if no installed package has it.
    """
    entry = _entry("lolama.quantizers", name, "no installed package quantizes so")
    return cast(Quantizer, entry.load()())


@dataclass(frozen=True)
class Attempt:
    """What came of loading one entry point: a provider, or why there is none.

    Attributes:
        name: The name of the entry point.
        package: The distribution that declares it.
        provider: Made from it; None if that failed.
        problem: One line on what failed; empty if nothing did.
    """

    name: str
    package: str
    provider: Any
    problem: str = ""


def attempts(group: str) -> Iterator[Attempt]:
    """Load every entry point of ``group``; for reports, which must go on where a package is broken."""
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist is not None else entry.module
        try:
            yield Attempt(entry.name, package, entry.load()())
        except Exception as error:  # the code of others can fail in any way
            yield Attempt(entry.name, package, None, one_line(error))


def one_line(error: Exception) -> str:
    """``error`` as the end of a line: its kind and the first 200 characters of what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _entry(group: str, name: str, missing: str) -> EntryPoint:
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise NotAvailableError(
            name, missing, "reinstall with `pip install --force-reinstall lolama-cli`"
        )
    return found[0]
