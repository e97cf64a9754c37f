"""The part of a `Tokenizer` that knows of thoughts: whether chats have them, and how they are turned off."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Message
from lolama_core.text.chat_template import ChatTemplate
from lolama_core.text.thinking import TAGS
from lolama_core.text.token_ids import TokenIds, token_ids


class ThinkingChats:
    """A `lolama_core.protocols.text.ThinkingTokenizer`, but for what `Tokenizer` itself has."""

    _template: ChatTemplate | None
    _thinking: bool | None = None

    def decode(self, ids: TokenIds, *, skip_special_tokens: bool = True) -> str:
        """Ids → text."""
        raise NotImplementedError

    def apply_chat_template(
        self,
        conversation: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
    ) -> object:
        """A conversation as text, or as ids."""
        raise NotImplementedError

    @property
    def thought_tags(self) -> tuple[str, str] | None:
        """What begins and ends a thought in front of a reply; None for a model that does not think."""
        return TAGS if self._template is not None and self._template.thinks else None

    def with_thinking(self, thinking: bool) -> Self:
        """The same tokenizer, whose chat template turns thinking on or off.

        Raises:
            UsageError: if there is no template, or it has no switch for it.
        """
        if self._template is None:
            reason = "the model has no chat template, and so no switch to turn thinking on or off"
            raise UsageError("thinking", reason, "leave it out")
        if self._template.switch is None:
            reason = "the model's chat template has no switch to turn thinking on or off"
            raise UsageError("thinking", reason, "leave it out")
        other = copy(self)
        other._thinking = thinking
        return other

    def opens_thought(self, ids: TokenIds) -> bool:
        """Whether a prompt that `render_chat` made ends within a thought, which the template begins.

        What a message says is no such beginning: the template has to write it behind any question.
        """
        tags = self.thought_tags
        if tags is None:
            return False
        end = self.decode(token_ids(ids)[-16:], skip_special_tokens=False)
        if not end.rstrip().endswith(tags[0]):
            return False
        question: Message = {"role": "user", "content": "?"}
        asked = self.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
        return str(asked).rstrip().endswith(tags[0])
