"""Rows of a table of settings: a dataclass whose fields say what they may be, and what they do.

The table itself is `GenerationConfig`. Options, keys of JSON and schemas are made of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal[
    "integer",
    "integer or null",
    "number",
    "boolean",
    "list of strings",
    "list of integers",
    "list of lists of integers",
    "list of strings or integers",
    "object",
]
"""What a setting is in JSON. An ``object`` has token ids as keys and numbers as values."""

# Ranges that files of a model are checked against, too: lowest and highest value.
TEMPERATURE = 0.0, 1e6
PROBABILITY = 0.0, 1.0
PENALTY_FACTOR = 1e-6, 1e6

OF_COMMANDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Settings that a command decides by itself if no option does, whatever a model's authors recommend."""


class Check(Protocol):
    """What values a setting may have."""

    @property
    def kind(self) -> Kind:
        """What they are in JSON."""
        ...

    def __call__(self, name: str, value: object) -> object:
        """``value`` as Python's own, of whatever kind it was given.

        Raises:
            UsageError: naming the setting, if it cannot be a value of it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of the table.

    Attributes:
        name: The name of the field.
        default: Its value if nobody says otherwise.
        check: What values it may have.
        help: What it does, in a few words.
    """

    name: str
    default: Any
    check: Callable[[str, object], object]
    kind: Kind
    help: str


def setting(default: object, check: Check, help: str) -> Any:
    """A field of the table; see `Setting`."""
    metadata = {"check": check, "help": help}
    if isinstance(default, dict):  # which dataclasses take as a mistake
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def rows(table: type) -> Mapping[str, Setting]:
    """The rows of a table, by name and in its order.

    Args:
        table: A dataclass with fields of `setting`; others are no rows.
    """
    return {
        each.name: Setting(
            name=each.name,
            default=each.default if each.default_factory is MISSING else each.default_factory(),
            check=each.metadata["check"],
            kind=each.metadata["check"].kind,
            help=each.metadata["help"],
        )
        for each in fields(table)
        if "check" in each.metadata
    }
