"""Reading calls out of a text that is still growing: one function for each way in which models write them.

A reader is a generator. It yields where it needs more text, returns the calls that it has read, and raises
`NotACall` as soon as it is certain that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.tool_messages import parsed_object, texts_in

_SPACES = re.compile(r"\s*")
_NAME = re.compile(r"[\w.\-/]{1,256}")
_OUTSIDE = re.compile(r'["{}\[\]]')
_WITHIN = re.compile(r'["\\]')
# What the first key of a call may be: JSON that is no call need not be read to its end.
_FIRST_KEYS = ("name", "type", "id", "function", "arguments", "parameters")

Read = TypeVar("Read")
Reading: TypeAlias = Generator[None, None, Read]


class NotACall(Exception):
    """The text at this place is no call."""


class FoundCall(NamedTuple):
    """A call: the function's name, and its arguments."""

    name: str
    arguments: dict[str, Any]


Reader: TypeAlias = Callable[["Source"], Reading[list[FoundCall]]]


class Source:
    """A text that grows while a reader reads it.

    Attributes:
        text: What is there of it.
        at: How far it was read.
        known: Names of functions.
        ended: Whether nothing will follow.
    """

    def __init__(self, text: str, at: int, known: Collection[str]) -> None:
        self.text, self.at, self.known, self.ended = text, at, known, False

    def skip_spaces(self) -> Reading[str]:
        """Skip white space; the character behind it, "" at the end."""
        while True:
            match = _SPACES.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            yield

    def follows(self, literal: str) -> Reading[bool]:
        """Whether ``literal`` comes next, which is then read."""
        while True:
            found = self.text[self.at : self.at + len(literal)]
            if found == literal:
                self.at += len(literal)
                return True
            if self.ended or not literal.startswith(found):
                return False
            yield

    def expect(self, literal: str) -> Reading[None]:
        """Read ``literal``.

        Raises:
            NotACall: if something else comes next.
        """
        if not (yield from self.follows(literal)):
            raise NotACall

    def name(self) -> Reading[str]:
        """Read the name of a function, which ends before another character.

        Raises:
            NotACall: if none comes next.
        """
        while True:
            match = _NAME.match(self.text, self.at)
            end = self.at if match is None else match.end()
            if end < len(self.text) or self.ended:
                if match is None:
                    raise NotACall
                self.at = end
                return match[0]
            yield

    def json(self) -> Reading[str]:
        """Read a JSON object or list as far as its brackets go; its text.

        Raises:
            NotACall: if none comes next, or it does not end.
        """
        if (yield from self.skip_spaces()) not in ("{", "["):
            raise NotACall
        start, level, quoted = self.at, 0, False
        while True:
            match = (_WITHIN if quoted else _OUTSIDE).search(self.text, self.at)
            if match is None:
                self.at = len(self.text)
            elif match[0] == "\\":
                if match.end() < len(self.text):
                    self.at = match.end() + 1
                    continue
                self.at = match.start()
            else:
                self.at = match.end()
                if match[0] == '"':
                    quoted = not quoted
                else:
                    level += 1 if match[0] in "{[" else -1
                if not level:
                    return self.text[start : self.at]
                continue
            if self.ended:
                raise NotACall
            yield


def tagged(source: Source) -> Reading[list[FoundCall]]:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``: Hermes, Qwen, SmolLM3 and many more.

    The last tag may be missing: some models leave it out where the reply ends, or another call follows.
    """
    yield from source.expect("<tool_call>")
    found = _call(parsed_object((yield from source.json())), source.known)
    end = source.at
    yield from source.skip_spaces()
    if not (yield from source.follows("</tool_call>")):
        source.at = end
    return [found]


def bare(source: Source) -> Reading[list[FoundCall]]:
    """``{"name": ..., "parameters": {...}}``: Llama 3, with ``<|python_tag|>`` before it or without.

    Several calls stand behind each other, mostly with a semicolon between them.
    """
    yield from source.follows("<|python_tag|>")
    calls = [(yield from _bare_object(source))]
    while True:
        end = source.at
        if (yield from source.skip_spaces()) == ";":
            source.at += 1
        try:
            calls.append((yield from _bare_object(source)))
        except NotACall:
            source.at = end
            return calls


def bracketed(source: Source) -> Reading[list[FoundCall]]:
    """``[TOOL_CALLS][{"name": ..., "arguments": {...}}]`` or ``[TOOL_CALLS]name[ARGS]{...}``: Mistral."""
    yield from source.expect("[TOOL_CALLS]")
    first = yield from source.skip_spaces()
    if first in ("{", "["):
        return _calls((yield from source.json()), source.known)
    name = yield from source.name()
    if (yield from source.follows("[CALL_ID]")):
        yield from source.name()
    yield from source.follows("[ARGS]")
    if (yield from source.skip_spaces()) != "{":
        raise NotACall
    arguments = parsed_object((yield from source.json()))
    return [_call({"name": name, "arguments": arguments}, source.known)]


def _bare_object(source: Source) -> Reading[FoundCall]:
    if (yield from source.skip_spaces()) != "{":
        raise NotACall
    start = source.at
    source.at += 1
    if (yield from source.skip_spaces()) != '"':
        raise NotACall
    first = source.at + 1
    while True:
        key, quote, _ = source.text[first : first + 16].partition('"')
        if quote and key in _FIRST_KEYS:
            break
        if quote or source.ended or not any(known.startswith(key) for known in _FIRST_KEYS):
            raise NotACall
        yield
    source.at = start
    found = parsed_object((yield from source.json()))
    if found is None or not found.keys() & {"arguments", "parameters"}:
        raise NotACall  # JSON that has a name, as many answers do
    return _call(found, source.known)


def _calls(text: str, known: Collection[str]) -> list[FoundCall]:
    """The calls in a JSON list, or the one that a JSON object is."""
    listed = parsed_object(f'{{"calls": {text}}}')
    calls = None if listed is None else listed["calls"]
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list) or not calls:
        raise NotACall
    return [_call(call, known) for call in calls]


def _call(value: Any, known: Collection[str]) -> FoundCall:
    """A call of a known function with an object of arguments; some models write the text of one."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise NotACall
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = parsed_object(arguments)
    if value["name"] not in known or not isinstance(arguments, dict):
        raise NotACall
    if not is_unicode("".join(texts_in(arguments))):
        raise NotACall
    return FoundCall(value["name"], arguments)
