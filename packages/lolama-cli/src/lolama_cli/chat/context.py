"""Room in the model's context: what a conversation forgets, and what its user is told before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lolama_cli.chat.conversation import Conversation, PictureFile, ToolStep
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama_cli.chat.partner import ChatPartner, Prompt

Overflow = Literal["error", "slide"]

NEARLY_FULL = 0.8
"""The share of the context from which on the user is told that it fills."""

_KEPT_FOR_REPLY = 1 / 8
_KEPT_FOR_REPLY_AGAIN = 1 / 2
"""Shares of the context. Before a second try the reply may have ended because the context was full."""
_KEPT_BY_SLIDE = 0.75
"""The share of the context that a slide keeps. All of it runs again, so room is made for several turns."""


def fitted(
    model: ChatPartner,
    before: Conversation,
    question: str,
    pictures: tuple[PictureFile, ...],
    *,
    overflow: Overflow,
    longest_reply: int,
    again: bool,
    notice: Callable[[str], None],
    steps: Sequence[ToolStep] = (),
) -> tuple[Prompt, Conversation]:
    """The prompt, and the conversation of which it was made once the context has room for it.

    Args:
        model: Its context is what there is room in.
        before, question, pictures: As for `ChatPartner.prompt`.
        overflow: What to do if there is no room.
        longest_reply: Tokens that a reply may have.
        again: Whether the question was asked before.
        notice: Is told what is forgotten.
        steps: Calls of tools that followed the question.

    Raises:
        UsageError: if it does not fit, with both counts.
        ModelError: as `ChatPartner.prompt`.
    """
    limit = model.max_seq_len
    prompt = model.prompt(before, question, pictures, steps=steps)
    share = _KEPT_FOR_REPLY_AGAIN if again else _KEPT_FOR_REPLY
    room = min(longest_reply, int(limit * share))
    if overflow == "slide" and prompt.positions + room > limit:
        first = before.first
        while first < len(before.exchanges):
            first += 1
            prompt = model.prompt(before, question, pictures, first=first, steps=steps)
            if prompt.positions + room <= limit * _KEPT_BY_SLIDE:
                break
        if first > before.first and prompt.positions < limit:
            what = "exchange" if first == 1 else f"{first} exchanges"
            notice(f"the chat forgot its first {what} to make room")
        before = replace(before, first=first)
    if prompt.positions >= limit:
        raise _too_long(prompt.positions, limit, alone=not before.sent)
    return prompt, before


def nearly_full(used: int, limit: int, overflow: Overflow) -> str:
    """What to tell when the context fills. ``used`` of ``limit`` positions are in use."""
    line = f"the chat fills {used / limit:.0%} of the model's context of {limit:,} tokens; "
    if overflow == "slide":
        return line + "soon it will forget its first exchanges"
    return line + f"{_REMEDY} makes room"


def full(limit: int, overflow: Overflow) -> str:
    """What to tell when a reply ended because the context of ``limit`` positions was full."""
    line = f"the reply ends here because the model's context of {limit:,} tokens is full; "
    if overflow == "slide":
        return line + "/retry makes room, and so does the next message"
    return line + f"{_REMEDY} makes room"


_REMEDY = "/clear, /undo or /set overflow slide"


def _too_long(count: int, limit: int, *, alone: bool) -> UsageError:
    what = "message" if alone else "conversation"
    reason = f"has {count:,} tokens of the {limit:,} the model attends over, no room for a reply"
    return UsageError(what, reason, "shorten it" if alone else f"use {_REMEDY}, then /retry")
