"""A growing reply as a server tells it: what the model thinks, its calls, and the rest."""

from __future__ import annotations

from collections.abc import Sequence

from lolama.thinking import ThoughtFormat, ThoughtSplitter, is_thought
from lolama.tool_use import ToolUse
from lolama_core import (
    CallArguments,
    CallBegin,
    ContentPiece,
    ToolCallParser,
    ToolEvent,
    function_names,
)
from lolama_core.protocols.serving import ReplyPart


class ReplyParts:
    """A thought and calls apart from the reply; see `ReplyParser`.

    Args:
        thoughts: Where the thought stands; None for a reply without one.
        use: The tools; None for a reply without calls.
    """

    def __init__(self, thoughts: ThoughtFormat | None, use: ToolUse | None) -> None:
        self._splitter = ThoughtSplitter(thoughts)
        self._calls: ToolCallParser | None = None
        if use is not None:
            self._calls = ToolCallParser(use.format, function_names(use.tools))
        self._begun: dict[int, CallBegin] = {}

    def push(self, text: str) -> list[ReplyPart]:
        """Take more text; the parts that are certain."""
        return self._parts(self._splitter.push(text))

    def finish(self) -> list[ReplyPart]:
        """End the text; the parts that were held back."""
        parts = self._parts(self._splitter.finish())
        return parts if self._calls is None else parts + self._told(self._calls.finish())

    def _parts(self, pieces: Sequence[str]) -> list[ReplyPart]:
        parts: list[ReplyPart] = []
        for piece in pieces:
            if is_thought(piece):
                parts.append(ReplyPart("thought", str(piece)))
            elif self._calls is None:
                parts.append(ReplyPart("text", piece))
            else:
                parts += self._told(self._calls.push(piece))
        return parts

    def _told(self, events: Sequence[ToolEvent]) -> list[ReplyPart]:
        parts: list[ReplyPart] = []
        for event in events:
            match event:
                case ContentPiece(text):
                    parts.append(ReplyPart("text", text))
                case CallBegin(index):
                    self._begun[index] = event
                case CallArguments(index, text):
                    begun = self._begun[index]
                    parts.append(ReplyPart("call", text, begun.name, begun.id))
        return parts
