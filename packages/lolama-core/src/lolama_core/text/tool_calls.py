"""Calls of tools in what a model writes: one parser for streams and for whole answers.

Whatever does not read as a call of a known function stays content: no character is lost, and nothing raises.
A call is given out once it is whole, its arguments in one piece. Pieces of arguments could be given out
earlier, but could not be taken back when the JSON then turns out broken.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from lolama_core.protocols.tools import ToolCall
from lolama_core.text.tool_formats import ToolFormat
from lolama_core.text.tool_readers import FoundCall, NotACall, Reading, Source

_ID_CHARACTERS = string.ascii_letters + string.digits
_ID_LENGTH = 9  # Mistral's templates take no other
_MOST_TRIED = 1_000_000
"""Characters that may be read in vain: a text of nothing but beginnings of calls must not take for ever."""


@dataclass(frozen=True)
class ContentPiece:
    """A piece of the reply, apart from calls."""

    text: str


@dataclass(frozen=True)
class CallBegin:
    """A call begins: its number among the reply's, its id, and the name of the function."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the arguments of a call, which are a JSON object as text."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """A call ends.

    Attributes:
        index: Its number.
        source: What the model wrote for it, with white space before it; of calls that stand in one list, the
            last one has it.
    """

    index: int
    source: str


ToolEvent: TypeAlias = ContentPiece | CallBegin | CallArguments | CallEnd


def new_call_id() -> str:
    """Nine random letters and digits."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


class ToolCallParser:
    """Takes calls out of a growing text, however the pieces cut it.

    White space in front of a call, and behind the last one, belongs to no content.

    Args:
        format: How the model writes calls.
        names: The functions that there are.
        new_id: Makes the id of a call.

    Attributes:
        text: The content so far.
        calls: The calls so far.

    Example:
        >>> parser = ToolCallParser(FORMATS["hermes"], ["add"])
        >>> events = parser.push('Let me count.<tool_call>{"name": "add", "arguments": {"a": 1}}')
        >>> events += parser.push("</tool_call>") + parser.finish()
        >>> parser.text, parser.calls[0].arguments
        ('Let me count.', {'a': 1})
    """

    def __init__(
        self,
        format: ToolFormat,
        names: Collection[str],
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._format, self._names, self._new_id = format, frozenset(names), new_id
        self._pending = ""  # from the last character that was passed on
        self._at = 0
        self._source: Source | None = None
        self._reading: Reading[list[FoundCall]] | None = None
        self._tried = 0
        self._space = ""
        self._after_call = False
        self.text = ""
        self.calls: tuple[ToolCall, ...] = ()

    def push(self, text: str) -> list[ToolEvent]:
        """Take more text; return what is certain."""
        return self._events(text, last=False)

    def finish(self) -> list[ToolEvent]:
        """End the text; return what was held back."""
        return self._events("", last=True)

    def _events(self, text: str, *, last: bool) -> list[ToolEvent]:
        self._pending += text
        events: list[ToolEvent] = []
        while self._reading is not None or self._begin(events, last=last):
            if not self._read(events, last=last):
                break
        if last and self._space and not self._after_call:
            events.append(ContentPiece(self._space))
            self._space = ""
        events = _merged(events)
        self.text += "".join(event.text for event in events if isinstance(event, ContentPiece))
        return events

    def _begin(self, events: list[ToolEvent], *, last: bool) -> bool:
        """Pass on what stands before the next call, and begin to read that; whether there is one."""
        found = None
        if self._tried <= _MOST_TRIED:
            found = self._format.opening.search(self._pending, self._at)
        if found is None:
            keep = 0 if last else self._format.possible_opening(self._pending, self._at)
            self._pass_on(len(self._pending) - keep, events)
            # An opening may depend on the character before it.
            cut = max(self._at - 1, 0)
            self._pending, self._at = self._pending[cut:], self._at - cut
            return False
        self._pass_on(found.start(), events)
        self._source = Source(self._pending, self._at, self._names)
        self._reading = self._format.reader(self._source)
        return True

    def _read(self, events: list[ToolEvent], *, last: bool) -> bool:
        """Read on where a call may be; whether it is certain now what that is."""
        assert self._reading is not None
        assert self._source is not None
        self._source.text, self._source.ended = self._pending, last
        try:
            next(self._reading)
        except StopIteration as done:
            self._take(done.value, self._source.at, events)
        except NotACall:
            self._tried += self._source.at - self._at
            self._pass_on(self._at + 1, events)
        else:
            return False
        self._reading = None
        return True

    def _take(self, found: list[FoundCall], end: int, events: list[ToolEvent]) -> None:
        source, self._space = self._space + self._pending[self._at : end], ""
        self._at, self._after_call = end, True
        for call in found:
            made = ToolCall(self._new_id(), call.name, call.arguments)
            index, self.calls = len(self.calls), (*self.calls, made)
            events += [
                CallBegin(index, made.id, made.name),
                CallArguments(index, json.dumps(made.arguments, ensure_ascii=False)),
                CallEnd(index, source if call is found[-1] else ""),
            ]

    def _pass_on(self, end: int, events: list[ToolEvent]) -> None:
        """Give out the text up to ``end`` as content, but for white space that a call may follow."""
        text = self._space + self._pending[self._at : end]
        self._at = end
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            self._after_call = False
            events.append(ContentPiece(said))


def _merged(events: list[ToolEvent]) -> list[ToolEvent]:
    """The events, with one piece of content for several in a row."""
    merged: list[ToolEvent] = []
    for is_content, group in groupby(events, lambda event: isinstance(event, ContentPiece)):
        if is_content:
            pieces = (event.text for event in group if isinstance(event, ContentPiece))
            merged.append(ContentPiece("".join(pieces)))
        else:
            merged += group
    return merged
