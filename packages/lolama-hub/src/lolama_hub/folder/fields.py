"""Reading single values out of untrusted JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lolama_core.protocols import checks
from lolama_core.protocols.checks import is_integer, is_number
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON

# No size in a published configuration comes near it; what a model can have is for its family to say.
LARGEST_INTEGER = 2**31 - 1

_NO_DEFAULTS: Mapping[str, JSON] = MappingProxyType({})


def shown(value: object) -> str:
    """A value of a JSON file as a message may show it; see `checks.shown`. Of what holds others, its kind."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return checks.shown(value)


class Fields:
    """The values of one JSON object, each checked for type and range as it is read.

    JSON ``null`` is a value: it is never replaced by a default.

    Args:
        path: The file, named in every message.
        values: What the file holds.
        defaults: What a key that is absent means.
        block: Name of the object inside the file, for messages; empty for the file itself.
    """

    def __init__(
        self,
        path: Path,
        values: Mapping[str, JSON],
        defaults: Mapping[str, JSON] = _NO_DEFAULTS,
        block: str = "",
    ) -> None:
        self.path, self.values, self.defaults, self.block = path, values, defaults, block

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> JSON:
        """The value as it is: of the file, else the default, else None."""
        return self.values[name] if name in self.values else self.defaults.get(name)

    def refuse(self, name: str, expected: str) -> ModelError:
        """The error for a value that is not ``expected``."""
        label = f"{self.block}.{name}" if self.block else name
        if name not in self.values and name not in self.defaults:
            reason = f"the field {label} is missing ({expected})"
        else:
            reason = f"{label} is {shown(self.get(name))}, expected {expected}"
        return ModelError(str(self.path), reason, "correct the file or get it again")

    def integer(self, name: str, *, low: int = 1, high: int = LARGEST_INTEGER) -> int:
        """An integer from ``low`` to ``high``.

        Raises:
            ModelError: for anything else; ``true``, ``32.0`` and ``"32"`` are not integers.
        """
        value = self.get(name)
        if not is_integer(value, low, high):
            raise self.refuse(name, f"an integer from {low} to {high}")
        return value

    def optional_integer(self, name: str, *, low: int = 1) -> int | None:
        """The same, or None where the value is null or absent without a default."""
        return None if self.get(name) is None else self.integer(name, low=low)

    def number(self, name: str, *, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``.

        Raises:
            ModelError: for anything else.
        """
        value = self.get(name)
        if not is_number(value, low, high):
            raise self.refuse(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        """``true`` or ``false``.

        Raises:
            ModelError: for anything else.
        """
        value = self.get(name)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value
