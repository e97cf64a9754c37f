"""Text in, ids out, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import Message


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids and ids into text. The argument names are those of Hugging Face tokenizers."""

    @property
    def vocab_size(self) -> int:
        """Number of ids: each id is below it."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text, if the model uses one."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end a text."""
        ...

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` can be used."""
        ...

    def encode_ids(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]:
        """Text → ids.

        Args:
            text: The text.
            add_special_tokens: Add what the tokenizer adds by itself (at most one BOS, for most models).
            split_special_tokens: Read control tokens written out in ``text``, such as ``</s>``, as the
                plain text they are. True for every text that a user typed.
        """
        ...

    def ensure_bos(self, ids: Sequence[int]) -> list[int]:
        """``ids`` with exactly one BOS in front, if this tokenizer begins texts with one."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Ids → text."""
        ...

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which `decode` leaves out."""
        ...

    def is_byte(self, token_id: int) -> bool:
        """Whether the id's text depends on the ids around it, as that of a single byte (``<0xE2>``) does."""
        ...

    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """A conversation → ids, by the model's chat template.

        Control and image ids come from the structure of the messages alone, never from their text; for
        text without control tokens the result equals transformers' ``apply_chat_template``.

        Raises:
            ModelError: if there is no template, or it misbehaves.
        """
        ...


@runtime_checkable
class ThinkingTokenizer(Tokenizer, Protocol):
    """A tokenizer that knows whether its model thinks before it answers."""

    @property
    def thought_tags(self) -> tuple[str, str] | None:
        """What begins and ends a thought in front of a reply; None for a model that does not think."""
        ...

    def with_thinking(self, thinking: bool) -> Tokenizer:
        """The same tokenizer, whose chat template turns thinking on or off.

        Raises:
            UsageError: if the template has no switch for it.
        """
        ...

    def opens_thought(self, ids: Sequence[int]) -> bool:
        """Whether a prompt that `render_chat` made ends within a thought, which the template begins."""
        ...


@runtime_checkable
class ToolTokenizer(Tokenizer, Protocol):
    """A tokenizer whose chat template may tell the model which tools there are."""

    @property
    def hears_tools(self) -> bool:
        """Whether it does."""
        ...

    @property
    def tool_format(self) -> str:
        """How its model writes calls: ``hermes``, ``llama``, ``mistral`` or ``mistral-args``.

        ``generic`` where the template tells of no tools, or of a format that is not read here.
        """
        ...

    def control_ids(self, spellings: Iterable[str]) -> Mapping[str, int]:
        """Those of ``spellings`` that are control tokens, with their ids."""
        ...

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[ToolDefinition] | None = None,
    ) -> list[int]:
        """A conversation → ids, by the model's chat template, which is told the tools.

        Definitions of tools, calls and their results are text as messages are: what they spell is no control
        token. For text without any the result equals transformers' ``apply_chat_template(tools=...)``.

        Raises:
            ModelError: if there is no template, or it misbehaves.
            UsageError: if tools or messages nest too deep.
        """
        ...
