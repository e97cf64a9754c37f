"""The part of a `Tokenizer` that renders conversations, and knows how its chat template has tools called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import Message
from lolama_core.text.encoder import Encoder
from lolama_core.text.stacked_ids import stacked_ids
from lolama_core.text.stand_ins import StandIns
from lolama_core.text.taught_format import taught_format
from lolama_core.text.thinking_chats import ThinkingChats
from lolama_core.text.tool_messages import PROBE

if TYPE_CHECKING:
    from torch import Tensor


class Chats(ThinkingChats):
    """A `lolama_core.protocols.text.ToolTokenizer`, but for what `Tokenizer` itself has."""

    _source: str
    _names: Mapping[str, str]
    _encoder: Encoder
    _stand_ins: StandIns

    @cached_property
    def hears_tools(self) -> bool:
        """Whether the chat template tells the model which tools there are."""
        return self._template is not None and self._template.hears_tools(self._names)

    @cached_property
    def tool_format(self) -> str:
        """See `lolama_core.protocols.text.ToolTokenizer`."""
        if not self.hears_tools:
            return "generic"
        return taught_format(
            lambda messages, prompt: str(
                self.apply_chat_template(
                    messages, [PROBE], add_generation_prompt=prompt, tokenize=False
                )
            )
        )

    def control_ids(self, spellings: Iterable[str]) -> dict[str, int]:
        """See `lolama_core.protocols.text.ToolTokenizer`."""
        known = self._stand_ins.ids
        return {text: known[text] for text in spellings if text in known}

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[ToolDefinition] | None = None,
    ) -> list[int]:
        """A conversation → ids, by the chat template; see `lolama_core.protocols.text.ToolTokenizer`."""
        text = self._render(messages, add_generation_prompt, tools)
        return self._stand_ins.encode(
            text, lambda spelled: self._encoder.encode(spelled, False, True), self._source
        )

    def apply_chat_template(
        self,
        conversation: Sequence[Message],
        tools: Sequence[ToolDefinition] | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_tensors: Literal["pt"] | None = None,
    ) -> list[int] | Tensor | str:
        """`render_chat` with the names and defaults of Hugging Face tokenizers.

        What a message says is never taken for a control token, as with ``sanitize_control_tokens`` there. The
        ids come as a list (``return_dict=False`` there).

        Args:
            conversation: The messages.
            tools: Functions that the model may call.
            add_generation_prompt: End where the assistant's reply begins.
            tokenize: Return ids; otherwise the text.
            return_tensors: ``"pt"`` for a (1, T) int64 tensor.

        Raises:
            UsageError: for another value of ``return_tensors``.
            ModelError: if there is no template, or it misbehaves.
        """
        if not tokenize:
            return self._stand_ins.plain(self._render(conversation, add_generation_prompt, tools))
        ids = self.render_chat(
            conversation, add_generation_prompt=add_generation_prompt, tools=tools
        )
        return ids if return_tensors is None else stacked_ids([ids], return_tensors)

    def _render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[ToolDefinition] | None,
    ) -> str:
        """The conversation as text, with stand-ins in place of the template's control tokens."""
        if self._template is None:
            reason = "the model has no chat template"
            raise ModelError(self._source, reason, "use `generate`, or encode the text")
        return self._template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            control_tokens=self._stand_ins.spellings,
            special_tokens=self._names,
            thinking=self._thinking,
            tools=tools,
        )
