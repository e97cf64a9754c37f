"""Arguments of Python callers, which may be of any type: what they are, or one clear error."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError


def truth(name: str, value: object) -> bool:
    """The boolean that ``value`` is: Python's, NumPy's, or one in a tensor or array of one element.

    A text such as "no" is none, though Python calls it true.

    Args:
        name: What the argument is called.
        value: What the caller gave.

    Raises:
        UsageError: for anything else.

    Example:
        >>> truth("quantize", True)
        True
    """
    plain = value
    if "bool" in str(getattr(value, "dtype", "")):
        try:
            plain = value.item()  # type: ignore[attr-defined] # a tensor or an array
        except (AttributeError, RuntimeError, ValueError):  # several elements, or on "meta"
            plain = None
    if not isinstance(plain, bool):
        raise UsageError(name, f"{shown(value)} is not a boolean", "give True or False")
    return plain


def path_of(name: str, value: object) -> Path:
    """The path that ``value`` is.

    Args:
        name: What the argument is called.
        value: What the caller gave.

    Raises:
        UsageError: for what is no path, or could not be the name of a file.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text or not text:
        raise UsageError(name, f"{shown(value)} is not a path", "give a text or a pathlib.Path")
    return Path(text)


def listed(name: str, value: object, remedy: str, reason: str = "") -> list[Any]:
    """The elements of a list, a tuple, an array, or of whatever else gives them out in order.

    Args:
        name: What the argument is called.
        value: What the caller gave.
        remedy: What to give instead of a value that has no elements.
        reason: What to say of such a value, if not that it is not a list.

    Raises:
        UsageError: for a text, a mapping, a set, or what has no elements.
    """
    refused = isinstance(value, str | bytes | bytearray | Mapping | Set)
    if not refused and isinstance(value, Iterable):
        try:
            elements = iter(value)
        except TypeError:  # a tensor or array without dimensions
            pass
        else:
            return list(elements)
    raise UsageError(name, reason or f"{shown(value)} is not a list", remedy)
