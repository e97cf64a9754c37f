"""Conversations and pictures as prompts: what the command line and Python do alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, cast

from lolama_core.protocols.arguments import listed
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import ContentPart, Message

if TYPE_CHECKING:
    from lolama_core.protocols import Tokenizer

_MESSAGE = 'write {"role": "user", "content": "..."}'
_PARTS = ("text", "image")


def message_content(text: str, pictures: int = 0, *, parts: bool) -> str | list[ContentPart]:
    """What a message says, as chat templates take it.

    Args:
        text: Its text.
        pictures: How many are shown with it; they stand before the text.
        parts: Write a list of parts. Templates of vision models expect one, and may leave a text alone out.
    """
    if not parts:
        return text
    images: list[ContentPart] = [{"type": "image"} for _ in range(pictures)]
    return [*images, {"type": "text", "text": text}]


def text_of(message: Message) -> str:
    """The text of a message, its parts joined; pictures have none."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def with_pictures(messages: Sequence[Message], pictures: int) -> list[Message]:
    """A conversation as the template of a vision model takes it: every message is a list of parts.

    Messages that say where the pictures stand (parts of type ``image``) stay so. Otherwise all pictures are
    shown with the last message of the user.

    Raises:
        UsageError: if messages have places for another number of pictures, or no user says anything.
    """
    turns: list[Message] = []
    places = 0
    for message in messages:
        content = message["content"] or ""
        parts = message_content(content, parts=True) if isinstance(content, str) else content
        places += sum(part["type"] == "image" for part in cast("list[ContentPart]", parts))
        turns.append({**message, "content": parts})
    if places == pictures:
        return turns
    asked = [number for number, message in enumerate(turns) if message["role"] == "user"]
    if places or not asked:
        reason = f"show {places} pictures, and {pictures} are given"
        raise UsageError("messages", reason, 'write a part {"type": "image"} for each')
    images: list[ContentPart] = [{"type": "image"} for _ in range(pictures)]
    question = turns[asked[-1]]
    question["content"] = [*images, *cast("list[ContentPart]", question["content"])]
    return turns


def check_messages(messages: Sequence[Mapping[str, object]]) -> list[Message]:
    """``messages``, once each has a role and a content.

    Raises:
        UsageError: naming what is wrong with the first that has not; if there is none, or one that is not the
            model's own says nothing.
    """
    messages = listed("messages", messages, _MESSAGE)
    if not messages:
        raise UsageError("messages", "is empty", _MESSAGE)
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UsageError("messages", f"{shown(message)} is no message", _MESSAGE)
        content = message.get("content")
        calls = message.get("tool_calls")
        if calls is not None:
            _check_calls(message["role"], calls)
        if content is None and (calls or message["role"] == "tool"):
            continue
        if not isinstance(content, str) and not (
            isinstance(content, list | tuple) and all(map(_is_part, content))
        ):
            reason = f"the content {shown(content)} is neither a text nor a list of parts"
            raise UsageError("messages", reason, _MESSAGE)
        if not isinstance(content, str):
            _check_parts(content)
        if not content and message["role"] == "user":
            raise empty_prompt()
        if not content and message["role"] == "system":
            raise UsageError("system", "is empty", "leave it out")
    return cast("list[Message]", list(messages))


def empty_prompt() -> UsageError:
    """The error for a prompt or question without a character, as the command refuses it."""
    return UsageError("prompt", "is empty", "give some text")


def _is_part(part: object) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("type"), str)


def _check_calls(role: str, calls: object) -> None:
    """Refuse calls in another shape than OpenAI's, and those of others than the assistant."""
    remedy = 'write [{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}]'
    if role != "assistant":
        reason = f"a message of the role {shown(role)} has tool_calls"
        raise UsageError("messages", reason, "only the assistant calls tools")
    for call in calls if isinstance(calls, list | tuple) else [calls]:
        function = call.get("function") if isinstance(call, Mapping) else None
        given = function if isinstance(function, Mapping) else {}
        named = isinstance(given.get("name"), str)
        if not named or not isinstance(given.get("arguments"), str | Mapping):
            raise UsageError("messages", f"tool_calls hold {shown(call)}", remedy)


def _check_parts(parts: Sequence[Mapping[str, object]]) -> None:
    """Refuse what a template would write a token for and nothing could be shown for, such as a video."""
    for part in parts:
        if part["type"] not in _PARTS:
            reason = f"hold a part of type {shown(part['type'])}"
            raise UsageError("messages", reason, "a model is shown texts and pictures alone")


def hears_system(tokenizer: Tokenizer, messages: Sequence[Message]) -> bool:
    """Whether the model is told the first of ``messages``, the system's; some templates leave it out.

    Raises:
        ModelError: if the chat template cannot be used.
    """
    ids = tokenizer.render_chat(messages)
    try:
        return ids != tokenizer.render_chat(messages[1:])
    except ModelError:  # a template that insists on a system message
        return True


def check_system(tokenizer: Tokenizer, messages: Sequence[Message], name: str) -> None:
    """Refuse a system message that a model would never see.

    Raises:
        UsageError: if the chat template leaves it out.
        ModelError: if the chat template cannot be used.
    """
    # What the template makes of calls and results is not asked here: it may know of none.
    from lolama_core import told_turns

    turns = told_turns(messages, ())
    if turns and turns[0]["role"] == "system" and not hears_system(tokenizer, turns):
        reason = f"the chat template of {name} leaves system messages out"
        raise UsageError("messages", reason, "say it in a message of the user")


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to the reply, with exactly one BOS where the model has one.

    Raises:
        ModelError: if there is no chat template, or it cannot be used.
    """
    return tokenizer.ensure_bos(tokenizer.render_chat(messages))


@contextmanager
def refused_messages() -> Iterator[None]:
    """What a chat template refuses here is the fault of the messages, and not of the model."""
    try:
        yield
    except ModelError as error:
        raise UsageError("messages", f"{error.subject} {error.reason}", "") from None


def going_on(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[int]:
    """The ids of a text that goes on behind ``ids``, without the space that would begin another text."""

    def encoded(text: str) -> list[int]:
        return tokenizer.encode_ids(text, add_special_tokens=False, split_special_tokens=True)

    line, both = encoded("\n"), encoded(f"\n{text}")
    # Behind a control token a text begins, and a few tokenizers join a line's end and what follows it.
    begins = not ids or tokenizer.is_special(ids[-1]) or both[: len(line)] != line
    return encoded(text) if begins else both[len(line) :]


def without_template(
    text: str,
    tokenizer: Tokenizer,
    marks: Sequence[Sequence[int]] = (),
    *,
    split_special_tokens: bool = True,
) -> list[int]:
    """The ids of a prompt in no template: what stands for each picture, then the text.

    Args:
        text: The text.
        tokenizer: The model's tokenizer.
        marks: The ids that stand for each picture: one, and a new line follows the last, or several with line
            breaks around them, of which two in a row may be one token.
        split_special_tokens: Read control tokens that ``text`` spells as the text they are.
    """
    if not marks:
        return tokenizer.encode_ids(text, split_special_tokens=split_special_tokens)
    shown, line = [*chain.from_iterable(marks)], "\n"
    if len(shown) > len(marks):
        spelled, line = tokenizer.decode(shown, skip_special_tokens=False), ""
        shown = tokenizer.encode_ids(spelled, add_special_tokens=False)
    words = tokenizer.encode_ids(
        line + text, add_special_tokens=False, split_special_tokens=split_special_tokens
    )
    return tokenizer.ensure_bos([*shown, *words])


def sees_none(subject: str, pictures: int, model: str, remedy: str) -> UsageError:
    """The error for pictures that a text model is shown."""
    count = f"{pictures} picture{'' if pictures == 1 else 's'}"
    return UsageError(subject, f"{count} for {model}, which is a text model and takes none", remedy)
