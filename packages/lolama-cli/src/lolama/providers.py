"""What the installed packages provide, found through their entry points.

Nothing is imported before it is asked for, and a package that is not installed is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import cast

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
    entry = _entry("lolama.quantizers", name, "no installed package quantises so")
    return cast(Quantizer, entry.load()())


def _entry(group: str, name: str, missing: str) -> EntryPoint:
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise NotAvailableError(
            name, missing, "reinstall with `pip install --force-reinstall lolama-cli`"
        )
    return found[0]
