"""What comes of a prompt: each step's part, the whole, and how probable its tokens were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple

from typing_extensions import TypeVar

from lolama_core.protocols.tools import ToolCall

FinishReason = Literal["eos", "stop", "length"]

Text = TypeVar("Text", bound=str | None, default=str, covariant=True)
"""The type of the text in results: ``str`` if the generator has a tokenizer, None if it has none."""


class TokenLogprobs(NamedTuple):
    """Log-probabilities at the place of one token, as the model gives them, before any setting.

    Attributes:
        id: The token.
        logprob: Natural logarithm of its probability; ``TextGenerator.score`` gives the same of a whole text.
        best: (id, log-probability) of the most probable tokens at this place, the best one first.
    """

    id: int
    logprob: float
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Generation(Generic[Text]):
    """What one prompt led to. ``print`` shows its text.

    Attributes:
        ids: New tokens, without the end token and without any that touch a stop text.
        text: Their text after the prompt's; None if the generator has no tokenizer.
        finish_reason: ``eos`` the model ended it, ``stop`` a stop text did, ``length`` there was no room.
        tool_calls: Functions that the model asks for, where the caller takes them out of ``text``, as a chat
            with tools does.
        stop_text: With ``stop``: the stop text that ended it.
        context_full: With ``length``: the model's context was full before ``max_new_tokens``.
        cached_tokens: Positions of the prompt that were not run again, since another text begins like it: one
            of the same engine or batch, or one that a `PrefixCache` holds.
        drafted_tokens: Tokens that were tried ahead of their turn; see `Drafting`. Results that differ in
            this alone are equal.
        accepted_tokens: How many of them the text has.
        thinking: What the model thought before it replied, where the caller keeps that apart from ``text``,
            as a chat does. The tokens of both are in ``ids``.
        logprobs: Log-probabilities of each of ``ids``; None unless the setting ``logprobs`` asked for them.
        prompt_logprobs: Log-probabilities of each token of the prompt but the first; None unless the setting
            ``prompt_logprobs`` asked for them. Positions of pictures have none.
    """

    ids: tuple[int, ...]
    text: Text
    finish_reason: FinishReason
    context_full: bool = False
    cached_tokens: int = 0
    drafted_tokens: int = field(default=0, compare=False)
    accepted_tokens: int = field(default=0, compare=False)
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    stop_text: str | None = None

    def __str__(self) -> str:
        return repr(self) if self.text is None else self.text


class Emission(NamedTuple):
    """What one step of a request gives out.

    Attributes:
        token: The id that was chosen, an end token included: what the model reads next.
        ids: The new ids that are certain: no stop text can take them back. With a tokenizer they know their
            text (`StreamedId`), and an id whose text is incomplete comes with the step that completes it.
        text: The new text that is certain; empty without a tokenizer.
        finish_reason: Why this step was the last; None while the request goes on.
        logprobs: Log-probabilities of each of ``ids``; empty unless the setting ``logprobs`` asked for them.
    """

    token: int
    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprobs, ...] = ()
