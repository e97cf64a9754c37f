"""What was said, as values: nothing here is changed in place, so a step that fails leaves all as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lolama.prompts import message_content
from lolama_core.protocols.tools import ToolCall
from lolama_core.protocols.types import ContentPart, Message

INTERRUPTED = "interrupted"
"""`Exchange.finish_reason` of a reply that somebody stopped; the others are those of `Generation`."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture that was shown.

    Attributes:
        path: Where it lies, absolute.
        digest: SHA-256 of the file, in hexadecimal: what was shown, whatever lies there later.
    """

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ToolStep:
    """Calls of tools, which a model asked for before its reply, and what came of them.

    Attributes:
        text: What it said beside them.
        calls: The calls.
        results: The result of each, as text.
    """

    text: str
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question and the reply to it.

    Attributes:
        question: What the user said.
        pictures: What was shown with it.
        steps: Calls of tools before the reply.
        reply: What the model said; of a reply that was stopped, what it had said.
        finish_reason: ``eos``, ``stop``, ``length`` or ``interrupted``.
        model: The name of the model that replied.
        seed: The seed of its random choices; None if they cannot be repeated.
    """

    question: str
    pictures: tuple[PictureFile, ...] = ()
    steps: tuple[ToolStep, ...] = ()
    reply: str
    finish_reason: str
    model: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """All exchanges, and which of them the model still reads.

    Attributes:
        system: What the model is told before everything else; None for nothing.
        exchanges: The exchanges in order.
        first: The first exchange that is sent to the model: those before it made room for later ones.
    """

    system: str | None = None
    exchanges: tuple[Exchange, ...] = ()
    first: int = 0

    @property
    def sent(self) -> tuple[Exchange, ...]:
        """The exchanges that the model reads."""
        return self.exchanges[self.first :]

    def plus(self, exchange: Exchange) -> Conversation:
        """The conversation with one more exchange."""
        return replace(self, exchanges=(*self.exchanges, exchange))

    def without_last(self) -> Conversation:
        """The conversation without its last exchange."""
        kept = self.exchanges[:-1]
        return replace(self, exchanges=kept, first=min(self.first, len(kept)))


def messages(
    system: str | None,
    exchanges: Sequence[Exchange],
    question: str,
    pictures: int = 0,
    *,
    steps: Sequence[ToolStep] = (),
    parts: bool = False,
) -> list[Message]:
    """The conversation as a chat template takes it, up to a question that is not answered yet.

    Args:
        system: See `Conversation.system`.
        exchanges: What was said before.
        question: What the user says now.
        pictures: How many are shown with it.
        steps: Calls of tools that followed.
        parts: Write each message as a list of parts, as templates of vision models expect.
    """
    content = partial(message_content, parts=parts)
    turns: list[Message] = []
    if system is not None:
        turns.append({"role": "system", "content": content(system)})
    for exchange in exchanges:
        asked = content(exchange.question, len(exchange.pictures))
        turns.append({"role": "user", "content": asked})
        turns += _told(exchange.steps, content)
        turns.append({"role": "assistant", "content": content(exchange.reply)})
    turns.append({"role": "user", "content": content(question, pictures)})
    return [*turns, *_told(steps, content)]


def _told(
    steps: Sequence[ToolStep], content: Callable[[str], str | list[ContentPart]]
) -> Iterator[Message]:
    """Calls and their results as messages."""
    for step in steps:
        yield {
            "role": "assistant",
            "content": content(step.text),
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in step.calls
            ],
        }
        for call, result in zip(step.calls, step.results, strict=True):
            yield {
                "role": "tool",
                "tool_call_id": call.id,
                "name": call.name,
                "content": content(result),
            }


def continued_text(exchanges: Sequence[Exchange], question: str) -> str:
    """The conversation as one text, for a model without a template: what stands on the screen.

    Each reply follows its question directly; the next question begins a new line.
    """
    lines = [exchange.question + exchange.reply for exchange in exchanges]
    return "\n".join([*lines, question])
