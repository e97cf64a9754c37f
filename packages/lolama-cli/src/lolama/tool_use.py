"""Tools in a chat: how the model is told of them, and its calls apart from its reply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lolama.prompts import hears_system, render
from lolama.thinking import ThoughtFormat, ThoughtSplitter, is_thought
from lolama_core import (
    ContentPiece,
    ToolCallParser,
    ToolFormat,
    function_names,
    told_turns,
    tool_format_of,
)
from lolama_core.protocols.text import ToolTokenizer

if TYPE_CHECKING:
    from lolama_core import Generation
    from lolama_core.protocols import Tokenizer
    from lolama_core.protocols.tools import ToolCall, ToolDefinition
    from lolama_core.protocols.types import Message


def speaks_of_tools(message: Message) -> bool:
    """Whether a message is a result of a tool, or calls one."""
    return message["role"] == "tool" or bool(message.get("tool_calls"))


@dataclass(frozen=True)
class ToolUse:
    """The tools of a chat with a model.

    Attributes:
        format: How the model writes calls.
        tools: What it may call.
        control_ids: Parts of a call that are control tokens, with their ids; a stream has to show these.
    """

    format: ToolFormat
    tools: tuple[ToolDefinition, ...]
    control_ids: dict[str, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, tools: Sequence[ToolDefinition]) -> ToolUse:
        """The tools of a chat with the model of a tokenizer."""
        form = tool_format_of(tokenizer)
        ids: dict[str, int] = {}
        if tools and isinstance(tokenizer, ToolTokenizer):
            ids |= tokenizer.control_ids(form.markers)
        return cls(form, tuple(tools), ids)

    @property
    def visible_ids(self) -> frozenset[int]:
        """The control tokens that a stream has to show."""
        return frozenset(self.control_ids.values())

    def splitter(self, thought: ThoughtFormat | None) -> ThoughtSplitter:
        """What takes a thought, and calls of these tools, out of a reply.

        Args:
            thought: Where the thought stands; None for a model that does not think.
        """
        return ReplySplitter(thought, self) if self.tools else ThoughtSplitter(thought)

    def render(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to the reply, with the tools told by the template, or in a message.

        Raises:
            ModelError: if there is no chat template, or it cannot be used.
        """
        turns, told = self.told_to(tokenizer, messages)
        if told is not None and isinstance(tokenizer, ToolTokenizer):
            return tokenizer.ensure_bos(tokenizer.render_chat(turns, tools=told))
        return render(tokenizer, turns)

    def told_to(
        self, tokenizer: Tokenizer, messages: Sequence[Message]
    ) -> tuple[list[Message], Sequence[ToolDefinition] | None]:
        """What a model is told: messages, and the tools for its template; without these they tell of tools.

        Raises:
            ModelError: if the chat template cannot be used.
        """
        if self.format.told and isinstance(tokenizer, ToolTokenizer):
            return [*messages], self.tools
        probe: list[Message] = [
            {"role": "system", "content": "?"},
            {"role": "user", "content": "?"},
        ]
        system = bool(self.tools) and hears_system(tokenizer, probe)
        return [*told_turns(messages, self.tools, system=system)], None


class ReplySplitter(ThoughtSplitter):
    """Splits a growing text into a thought, calls and a reply.

    Args:
        thought: Where the thought stands; None for a model that does not think.
        use: The tools.
    """

    def __init__(self, thought: ThoughtFormat | None, use: ToolUse) -> None:
        super().__init__(thought)
        self._parser = ToolCallParser(use.format, function_names(use.tools))
        self._ended = False

    def apart(self, result: Generation) -> Generation:
        """A whole generation, its thought in ``thinking``, its calls in ``tool_calls``."""
        if not self._ended:
            for _ in self.replies(iter([result.text or ""])):
                pass
        return replace(
            result,
            text=self._parser.text,
            thinking=self.thinking,
            tool_calls=self._parser.calls,
        )

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far."""
        return self._parser.calls

    def parts(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces of a whole text without its calls; those of a thought as `Thought`."""
        for piece in super().parts(pieces):
            if is_thought(piece):
                yield piece
            else:
                yield from self._said(piece)
        yield from self._said(None)

    def _said(self, piece: str | None) -> Iterator[str]:
        events = self._parser.finish() if piece is None else self._parser.push(piece)
        self._ended = piece is None
        return (event.text for event in events if isinstance(event, ContentPiece))
