"""What a model thinks before it replies, apart from the reply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.text import ThinkingTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lolama_core import Generation
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.tools import ToolCall


class Thought(str):
    """A piece of a thought, among the pieces of a reply."""

    __slots__ = ()


def is_thought(piece: str) -> bool:
    """Whether a piece of `ThoughtSplitter` belongs to the thought."""
    return isinstance(piece, Thought)


@dataclass(frozen=True)
class ThoughtFormat:
    """Where a thought stands in what a model writes: at its beginning, and nowhere else.

    Attributes:
        begin, end: The tags around it.
        opened: Whether the prompt has the first of them already.
    """

    begin: str
    end: str
    opened: bool

    def apart(self, result: Generation) -> Generation:
        """The same generation, its thought in ``thinking`` and the reply alone in ``text``."""
        splitter = ThoughtSplitter(self)
        text = "".join(splitter.replies(iter([result.text or ""])))
        return replace(result, text=text, thinking=splitter.thinking)


def with_thinking(tokenizer: Tokenizer, thinking: bool | None) -> Tokenizer:
    """The tokenizer whose chat template turns thinking on or off; itself for None, the template's default.

    Raises:
        UsageError: if the template has no switch for it.
    """
    if thinking is None:
        return tokenizer
    if not isinstance(tokenizer, ThinkingTokenizer):
        reason = "the model's tokenizer has no switch to turn thinking on or off"
        raise UsageError("thinking", reason, "leave it out")
    return tokenizer.with_thinking(thinking)


def thinks(tokenizer: Tokenizer) -> bool:
    """Whether the model may think before it replies."""
    return isinstance(tokenizer, ThinkingTokenizer) and tokenizer.thought_tags is not None


def thought_format(tokenizer: Tokenizer, ids: Sequence[int]) -> ThoughtFormat | None:
    """How a reply to a chat's prompt begins with a thought; None for a model that does not think."""
    if not isinstance(tokenizer, ThinkingTokenizer) or tokenizer.thought_tags is None:
        return None
    return ThoughtFormat(*tokenizer.thought_tags, tokenizer.opens_thought(ids))


class ThoughtSplitter:
    """Splits a growing text into a thought and a reply, however the pieces cut its tags.

    Line breaks next to the tags are left out, as chat templates do with earlier replies. A thought that does
    not end is a thought to the end. Without one, the text stays as it is.

    Args:
        format: Where the thought stands; None for a model that does not think.
    """

    def __init__(self, format: ThoughtFormat | None) -> None:
        self._format = format
        self._held = ""
        self._thought: list[str] = []
        self._before = format is not None and not format.opened
        self._within = format is not None and format.opened
        self._trim = False  # whether line breaks at the beginning of the reply are left out

    @property
    def thinking(self) -> str | None:
        """The thought so far; None if there is none."""
        return "".join(self._thought) or None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Calls of tools so far: none, where nothing looks for them."""
        return ()

    def apart(self, result: Generation) -> Generation:
        """A whole generation, its thought in ``thinking`` and the reply alone in ``text``."""
        return result if self._format is None else self._format.apart(result)

    def push(self, text: str) -> list[str]:
        """Take more text; return the pieces that are certain, those of a thought as `Thought`."""
        return self._pieces(text, last=False)

    def finish(self) -> list[str]:
        """End the text; return the pieces that were held back."""
        return self._pieces("", last=True)

    def parts(self, pieces: Iterator[str]) -> Iterator[str]:
        """A whole text that comes in pieces; those of a thought as `Thought`."""
        for piece in pieces:
            yield from self.push(piece)
        yield from self.finish()

    def replies(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces of the reply alone; `thinking` has the others."""
        return (part for part in self.parts(pieces) if not is_thought(part))

    def _pieces(self, text: str, *, last: bool) -> list[str]:
        self._held += text
        pieces: list[str] = []
        if self._before:
            self._begin(last=last)
        if self._within:
            pieces += self._think(last=last)
        if not self._before and not self._within:
            reply = self._held.lstrip("\n") if self._trim else self._held
            self._held = ""
            if reply:
                self._trim = False
                pieces.append(reply)
        return pieces

    def _begin(self, *, last: bool) -> None:
        """Find out whether the text begins with a thought."""
        assert self._format is not None
        begin = self._held.lstrip()
        if begin.startswith(self._format.begin):
            self._held = begin[len(self._format.begin) :]
            self._before, self._within = False, True
        elif last or not self._format.begin.startswith(begin):
            self._before = False

    def _think(self, *, last: bool) -> list[Thought]:
        """The pieces of the thought that are certain."""
        assert self._format is not None
        thought, end, reply = self._held.partition(self._format.end)
        if end:
            self._held, self._within, self._trim = reply, False, True
            thought = thought.rstrip("\n")
        elif last:
            self._held = ""
            thought = thought.rstrip("\n")
        else:
            certain = thought[: len(thought) - _possible(thought, self._format.end)].rstrip("\n")
            self._held = thought[len(certain) :]
            thought = certain
        if not self._thought:
            thought = thought.lstrip("\n")
        if not thought:
            return []
        self._thought.append(thought)
        return [Thought(thought)]


def is_cut_off(result: Generation) -> bool:
    """Whether the model was still thinking when there was no room left."""
    return bool(result.thinking) and not result.text and result.finish_reason == "length"


def _possible(text: str, tag: str) -> int:
    """Length of the longest end of ``text`` that ``tag`` begins with."""
    return max(length for length in range(len(tag)) if text.endswith(tag[:length]))
