"""What values settings may have; what fits no setting is refused by the setting's name.

Values may be of any kind: Python's, NumPy's, or tensors. They are kept as Python's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

from lolama_core.protocols import arguments
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import Kind
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.plain_numbers import real_number, whole_number
from lolama_core.text.token_ids import token_ids


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``; ``expected`` says so in words."""

    low: float
    high: float
    expected: str
    kind: ClassVar[Kind] = "number"

    def __call__(self, name: str, value: object) -> float:
        """See `Check`."""
        # NaN is neither above nor below anything, and infinities are past every limit.
        number = real_number(value)
        if number is None or not self.low <= number <= self.high:
            raise _refuse(name, value, self.expected)
        return number


@dataclass(frozen=True)
class Integer:
    """A whole number from ``low`` up, below ``limit``; ``expected`` says so in words."""

    low: int
    expected: str
    limit: float = math.inf
    kind: ClassVar[Kind] = "integer"

    def __call__(self, name: str, value: object) -> int:
        """See `Check`."""
        number = whole_number(value)
        if number is None or not self.low <= number < self.limit:
            raise _refuse(name, value, self.expected)
        return number


_TOKEN_ID = Integer(0, "a token id")
_BIAS = Number(-1e6, 1e6, "a number from -1,000,000 to 1,000,000")


@dataclass(frozen=True)
class OptionalInteger:
    """What ``integer`` takes, or None."""

    integer: Integer
    kind: ClassVar[Kind] = "integer or null"

    def __call__(self, name: str, value: object) -> int | None:
        """See `Check`."""
        return None if value is None else self.integer(name, value)


class Truth:
    """True or false."""

    kind: ClassVar[Kind] = "boolean"

    def __call__(self, name: str, value: object) -> bool:
        """See `Check`."""
        return arguments.truth(name, value)


class TokenIds:
    """A row of token ids."""

    kind: ClassVar[Kind] = "list of integers"

    def __call__(self, name: str, value: object) -> tuple[int, ...]:
        """See `Check`."""
        try:
            ids = token_ids(value)  # type: ignore[arg-type] # it checks what it is given
        except (UsageError, ValueError):
            raise _refuse(name, value, "a list of token ids") from None
        return tuple(_TOKEN_ID(name, token_id) for token_id in ids)


class Sequences:
    """Rows of token ids, none of them empty."""

    kind: ClassVar[Kind] = "list of lists of integers"
    _row = TokenIds()

    def __call__(self, name: str, value: object) -> tuple[tuple[int, ...], ...]:
        """See `Check`."""
        listed = getattr(value, "tolist", lambda: value)()
        found = [self._row(name, row) for row in listed] if _is_list(listed) else [()]
        if not all(found):
            raise _refuse(name, value, "a list of sequences of at least one token id")
        return tuple(found)


class Texts:
    """Texts, none of them empty; one text alone is a list of one."""

    kind: ClassVar[Kind] = "list of strings"

    def __call__(self, name: str, value: object) -> tuple[str, ...]:
        """See `Check`."""
        texts = (value,) if isinstance(value, str) else value
        if not _is_list(texts) or not all(isinstance(text, str) and text for text in texts):
            empty = _is_list(texts) and any(isinstance(text, str) and not text for text in texts)
            found = "an empty text" if empty else value
            raise _refuse(name, found, "a text of at least one character, or a list of such")
        for text in texts:
            if not is_unicode(text):
                raise _refuse(name, repr(text), "Unicode: it holds half of a surrogate pair")
        return tuple(texts)


class TextsOrIds:
    """Texts and token ids in any order; one alone is a list of one."""

    kind: ClassVar[Kind] = "list of strings or integers"
    _texts = Texts()

    def __call__(self, name: str, value: object) -> tuple[str | int, ...]:
        """See `Check`."""
        entries = value if _is_list(value) else (value,)
        return tuple(
            self._texts(name, entry)[0] if isinstance(entry, str) else _TOKEN_ID(name, entry)
            for entry in entries
        )


class Biases:
    """Token id → number."""

    kind: ClassVar[Kind] = "object"

    def __call__(self, name: str, value: object) -> dict[int, float]:
        """See `Check`."""
        if not isinstance(value, Mapping):
            raise _refuse(name, value, "a mapping from token id to number")
        return {_TOKEN_ID(name, key): _BIAS(name, bias) for key, bias in value.items()}


def _is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _refuse(name: str, value: object, expected: str) -> UsageError:
    found = f"{value:.40}" if isinstance(value, str) else shown(value, 40)
    return UsageError(name, f"{found} is not {expected}", "")
