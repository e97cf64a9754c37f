"""What a chat template may use up: characters, values and seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import islice
from typing import Any

_CHARACTERS = 1_000_000
_CHARACTERS_PER_CHARACTER = 4  # that the conversation holds
_COPIES = 50
_VALUES = 200_000
_SECONDS = 1.0
_TOO_MANY = f"a list of more than {_VALUES} values"


class BudgetExceeded(Exception):
    """The template went past its budget."""


class NotSupported(Exception):
    """The template uses a part of Jinja that is left out here: which one."""


class Budget(threading.local):
    """Counts what one rendering makes, and stops it before it makes too much.

    Every text is measured, and so is every list as it is made: one that holds another twice, sixty times
    over, is small in memory and would take for ever to print or to compare.

    Each thread that renders has its own, and seconds are those in which it computes: the process may be
    stopped, or wait for others, in the midst.
    """

    def __init__(self) -> None:
        self.start(0)

    def start(self, characters: int) -> None:
        """Begin anew, for a conversation of ``characters`` characters."""
        self._longest = _CHARACTERS + _CHARACTERS_PER_CHARACTER * characters
        self._left = _COPIES * self._longest
        self._deadline = time.thread_time() + _SECONDS

    def tick(self) -> None:
        """One step of a loop.

        Raises:
            BudgetExceeded: if time is up; all methods here raise it, for what they count.
        """
        if time.thread_time() > self._deadline:
            raise BudgetExceeded(f"more than {_SECONDS:g} s")

    def allow(self, characters: int) -> None:
        """A text of this length is about to be made, or is there."""
        if characters > self._longest:
            raise BudgetExceeded(f"more than {self._longest} characters")
        self.tick()

    def made(self, value: Any) -> Any:
        """``value``, which is new: a text counts against all that may be made, other things are measured."""
        if isinstance(value, str):
            self.allow(len(value))
            self._left -= len(value)
            if self._left < 0:
                raise BudgetExceeded(f"texts of more than {_COPIES * self._longest} characters")
            return value
        return self.measured(value)

    def measured(self, value: Any) -> Any:
        """``value``, whose text is of bearable length."""
        if _parts(value) is not None:
            self.allow(sum(map(_length, _leaves(value))))
        return value

    def text_of(self, value: Any) -> str:
        """``str(value)``."""
        return value if isinstance(value, str) else self.joined([str(self.measured(value))])

    def pieces(self, pieces: Iterable[str]) -> Iterator[str]:
        """``pieces``, as long as they are of bearable length together."""
        length = 0
        for piece in pieces:
            length += len(piece)
            self.allow(length)
            yield piece

    def joined(self, pieces: Iterable[str]) -> str:
        """All ``pieces`` in one."""
        text: str = self.made("".join(self.pieces(pieces)))
        return text

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """``values``, one step each."""
        for value in values:
            self.tick()
            yield value

    def listed(self, values: Iterable[Any]) -> list[Any]:
        """``values``, as a list of bearable length."""
        taken = list(islice(self.each(values), _VALUES + 1))
        if len(taken) > _VALUES:
            raise BudgetExceeded(_TOO_MANY)
        self.measured(taken)
        return taken


def _parts(value: Any) -> list[Any] | None:
    """What the text of ``value`` is made of; None if it is no container."""
    if isinstance(value, str | int | float | None):
        return None
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
        return list(value)
    from jinja2.utils import Namespace  # imported long since, by whoever renders

    # Its text is that of what was set in it, which is kept from templates under this name.
    return _parts(value._Namespace__attrs) if isinstance(value, Namespace) else None


def _leaves(value: Any) -> Iterator[Any]:
    """What is left of ``value`` when all containers in it are opened."""
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _VALUES:
            raise BudgetExceeded(_TOO_MANY)
        parts = _parts(part)
        if parts is None:
            yield part
        else:
            waiting += parts


def _length(value: Any) -> int:
    """Characters of the text of a value that is no container, roughly."""
    return len(value) if isinstance(value, str) else 8
