"""Values that anyone may have written into a file: what they are, and how a message shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from lolama_core.protocols.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_HUGE = 10**18


def shown(value: object, longest: int = 80) -> str:
    """``value`` as Python spells it: on one line, with what cannot be printed escaped, and not too long.

    Args:
        value: A value of any kind.
        longest: Characters, of a text without quotes and escapes; of a longer one the end is left out.

    Example:
        >>> shown("a name\\n")
        "'a name\\\\n'"
    """
    if isinstance(value, int) and abs(value) >= _HUGE:
        return "a huge integer"
    if isinstance(value, str):
        return repr(value if len(value) <= longest else value[: longest - 3] + "...")
    try:
        text = repr(value)
    except ValueError:  # Python refuses to spell an integer of more than 4300 digits
        return f"{kind_of(value)} with a huge integer"
    return text if len(text) <= longest else text[: longest - 3] + "..."


def words_of(error: BaseException) -> str:
    """What a library says of its failure: on one line, with what cannot be printed escaped, and not too long.

    Example:
        >>> words_of(ValueError("no such\\ntoken: \\0"))
        'no such token: \\\\x00'
    """
    words = " ".join(str(error).split()) or type(error).__name__
    escaped = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)
    return "".join(escaped)[:200]


def kind_of(value: object) -> str:
    """The type of ``value`` with its article, for messages.

    Example:
        >>> kind_of(1), kind_of("text")
        ('an int', 'a str')
    """
    return with_article(type(value).__name__)


def with_article(noun: str) -> str:
    """``noun`` with "a" or "an"."""
    # Names of types that begin with "u" are spoken like "you": a uint8, a UserDict.
    return f"{'an' if noun[:1].lower() in tuple('aeio') else 'a'} {noun}"


def is_integer(value: object, low: float = -math.inf, high: float = math.inf) -> TypeGuard[int]:
    """Whether ``value`` is an integer from ``low`` to ``high``.

    ``bool`` is an ``int`` to Python; a file that says ``true`` layers is damaged all the same.
    """
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(
    value: object, low: float = -math.inf, high: float = math.inf
) -> TypeGuard[int | float]:
    """Whether ``value`` is a finite number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high and (isinstance(value, int) or math.isfinite(value))


def refused(field: str, value: object, expected: str) -> ModelError:
    """The error for a field of a canonical configuration; see `config_errors.naming_file`."""
    reason = f"is {shown(value)}, expected {expected}"
    return ModelError(f"config {field}", reason, "check the model's config.json")


def check_integer(field: str, value: object, limit: int, low: int = 1) -> int:
    """The integer from ``low`` to ``limit`` that a field of a canonical configuration is.

    Raises:
        ModelError: for anything else.
    """
    if not is_integer(value, low, limit):
        raise refused(field, value, f"an integer from {low} to {limit}")
    return value


def check_number(field: str, value: object, low: float, high: float) -> float:
    """The finite number from ``low`` to ``high`` that a field of a canonical configuration is.

    Raises:
        ModelError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(field, value, "a number")
    if not is_number(value, low, high):
        raise refused(field, value, f"a number from {low:g} to {high:g}")
    return float(value)


def check_boolean(field: str, value: object) -> bool:
    """The boolean that a field of a canonical configuration is.

    Raises:
        ModelError: for anything else.
    """
    if not isinstance(value, bool):
        raise refused(field, value, "true or false")
    return value


def from_mapping(cls: type[T], values: Mapping[str, Any], block: str, package: str) -> T:
    """A dataclass from an object of a canonical configuration.

    Args:
        cls: Checks the values itself.
        values: Field → value.
        block: Where in the configuration it stands.
        package: A newer one may know more fields.

    Raises:
        ModelError: for a missing or unknown field, or a value that ``cls`` refuses.
    """
    unknown = sorted(set(values) - {known.name for known in fields(cls)})
    if unknown:
        names = ", ".join(f"{name:.40}" for name in unknown[:5])
        raise ModelError(
            f"config {block}",
            f"has fields that are not known here: {names}",
            f"upgrade {package}, or write the checkpoint again",
        )
    for known in fields(cls):
        required = known.default is MISSING and known.default_factory is MISSING
        if required and known.name not in values:
            name = known.name if block == "model" else f"{block} {known.name}"
            raise ModelError(f"config {name}", "is missing", "check the model's config.json")
    return cls(**values)
