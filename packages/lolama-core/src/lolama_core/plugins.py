"""What installed packages provide, found through their entry points.

Nothing is imported before it is asked for. What no package provides, and what cannot be loaded, is an error
that names the package.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, cast

from lolama_core.protocols import ModelFamily, ModelSource, Quantizer
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import LolamaError, NotAvailableError, one_line, shortage

# Group → what it holds, and the package that has lolama's own.
_KINDS = {
    "lolama.families": ("model family", "lolama-cli"),
    "lolama.sources": ("model source", "lolama-hub"),
    "lolama.quantizers": ("quantizer", "lolama-quant"),
    "lolama.linear_kernels": ("kernel", "lolama-quant"),
    "lolama.decoder_kernels": ("kernel", "lolama-quant"),
}


def entry_points(*, group: str, name: str | None = None) -> EntryPoints:
    """What `importlib.metadata.entry_points` finds, without reading a file of every package at each call.

    They are read again only if a folder in ``sys.path`` has changed, as it does when a package comes or goes.
    """
    places = tuple((path, *_state_of(path)) for path in sys.path)
    # A program may also add something else that finds packages.
    found = _read_entry_points(group, places, tuple(map(id, sys.meta_path)))
    return found if name is None else found.select(name=name)


@functools.lru_cache(maxsize=len(_KINDS))
def _read_entry_points(
    group: str, places: tuple[object, ...], finders: tuple[int, ...]
) -> EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _state_of(path: str) -> tuple[int, ...]:
    """Device, number and time of the last change of a folder or archive; empty if it is not there."""
    try:
        found = os.stat(path or ".")
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def installed_families() -> dict[str, ModelFamily]:
    """The model families by name, core's first: it is the one that is always there.

    Raises:
        NotAvailableError: if one cannot be loaded.
    """
    found = sorted(
        entry_points(group="lolama.families"), key=lambda entry: (entry.name != "llama", entry.name)
    )
    families: list[ModelFamily] = [_load(entry) for entry in found]
    return {family.name: family for family in families}


def installed_family(name: str, subject: str = "") -> ModelFamily:
    """The model family of that name; see `not_installed`.

    Raises:
        NotAvailableError: if no installed package has it, or it cannot be loaded.
    """
    return cast(ModelFamily, _one("lolama.families", name, subject))


def installed_source() -> ModelSource:
    """Where models that are no lolama checkpoints come from.

    Raises:
        NotAvailableError: if no installed package has it, or it cannot be loaded.
    """
    return cast(ModelSource, _one("lolama.sources", "huggingface", ""))


def installed_quantizer(name: str = "int8", subject: str = "") -> Quantizer:
    """The quantizer of that name; see `not_installed`.

    Raises:
        NotAvailableError: if no installed package has it, or it cannot be loaded.
    """
    return cast(Quantizer, _one("lolama.quantizers", name, subject))


def installed_kernels(group: str) -> list[Any]:
    """One of each kernel that is declared as an entry point of ``group``; see `runtime.kernels.Kernels`.

    Raises:
        NotAvailableError: if one cannot be loaded: models would run without it, several times slower, and
            nobody would know.
    """
    return [_load(entry) for entry in entry_points(group=group)]


def not_installed(group: str, name: object, subject: str = "") -> NotAvailableError:
    """The error for an entry point that no installed package has.

    Args:
        group: The group of entry points.
        name: In that group.
        subject: What needs it, such as a model; if empty, its name.
    """
    kind, package = _KINDS[group]
    reason = f"no installed package provides the {kind} {shown(name)}"
    return NotAvailableError(subject or str(name), reason, f"run `pip install {package}`")


@dataclass(frozen=True)
class PluginAttempt:
    """What came of loading one entry point: what it provides, or why that is not to be had.

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


def plugin_attempts(group: str) -> Iterator[PluginAttempt]:
    """Load every entry point of ``group``; for reports, which must go on where a package is broken."""
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            yield PluginAttempt(entry.name, _package(entry), entry.load()())
        except Exception as error:  # the code of others can fail in any way
            yield PluginAttempt(entry.name, _package(entry), None, one_line(error))


def _one(group: str, name: str, subject: str) -> Any:
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise not_installed(group, name, subject)
    return _load(found[0])


def _load(entry: EntryPoint) -> Any:
    kind, _ = _KINDS[entry.group]
    try:
        return entry.load()()
    except LolamaError:  # it was loaded, and says itself what it lacks
        raise
    except Exception as error:  # the code of others can fail in any way
        found = shortage(error, f"the {kind} {entry.name!r}")
        if found is not None:
            raise found from error
        package = _package(entry)
        raise NotAvailableError(
            package,
            f"its {kind} {entry.name!r} cannot be loaded ({one_line(error)})",
            f"`pip install --force-reinstall {package}`, or uninstall it to run without",
        ) from error


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module
