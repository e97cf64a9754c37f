"""The ways in which models write calls of tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lolama_core.protocols.text import ToolTokenizer
from lolama_core.text.tool_readers import Reader, bare, bracketed, tagged


@dataclass(frozen=True)
class ToolFormat:
    """How calls of tools are written.

    Attributes:
        name: What it is called.
        told: Whether the chat template tells the model of tools; else `tool_prompts` does, in messages.
        opening: Where a call may begin.
        literals: What `opening` finds, as far as it is longer than a character.
        markers: Parts of a call that are control tokens in some vocabularies. A stream of text has to let
            these through (``visible_ids``).
        reader: Reads a call.
        before, middle, after: What stands around a call's name and arguments.
        first, between, last: What stands around several calls, and between two.
        several: Whether a reply may hold more than one call.
    """

    name: str
    opening: re.Pattern[str]
    literals: tuple[str, ...]
    markers: tuple[str, ...]
    reader: Reader
    before: str
    middle: str
    after: str
    first: str = ""
    between: str = "\n"
    last: str = ""
    several: bool = True
    told: bool = True

    def possible_opening(self, text: str, start: int) -> int:
        """Length of the longest end of ``text``, from ``start`` on, that may become an opening."""
        return max(
            (
                length
                for literal in self.literals
                for length in range(1, min(len(literal), len(text) - start + 1))
                if text.endswith(literal[:length])
            ),
            default=0,
        )

    def spelled(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls as the model would write them.

        Args:
            calls: Name and arguments of each, the arguments as JSON.
        """
        texts = (self.before + name + self.middle + given + self.after for name, given in calls)
        return self.first + self.between.join(texts) + self.last


_TAGS = ("<tool_call>", "</tool_call>")
_TAGGED: dict[str, Any] = {
    "opening": re.compile("<tool_call>"),
    "literals": _TAGS[:1],
    "markers": _TAGS,
    "reader": tagged,
    "before": '<tool_call>\n{"name": "',
    "middle": '", "arguments": ',
    "after": "}\n</tool_call>",
}
_BRACKETED: dict[str, Any] = {
    "opening": re.compile(r"\[TOOL_CALLS\]"),
    "literals": ("[TOOL_CALLS]",),
    "markers": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    "reader": bracketed,
}

FORMATS: Mapping[str, ToolFormat] = MappingProxyType(
    {
        each.name: each
        for each in (
            ToolFormat("hermes", **_TAGGED),
            ToolFormat(
                "llama",
                # A reply that is JSON, or a line of it.
                opening=re.compile(r"<\|python_tag\|>|(?<![^\n])\{"),
                literals=("<|python_tag|>",),
                markers=("<|python_tag|>",),
                reader=bare,
                before='{"name": "',
                middle='", "parameters": ',
                after="}",
                between="; ",
                several=False,
            ),
            ToolFormat(
                "mistral",
                **_BRACKETED,
                before='{"name": "',
                middle='", "arguments": ',
                after="}",
                first="[TOOL_CALLS][",
                between=", ",
                last="]",
            ),
            ToolFormat(
                "mistral-args",
                **_BRACKETED,
                before="[TOOL_CALLS]",
                middle="[ARGS]",
                after="",
                between="",
            ),
            ToolFormat("generic", **_TAGGED, told=False),
        )
    }
)
"""All formats by name: Hermes, Qwen and SmolLM3; Llama 3; Mistral's list, and its later form; our own.

The last is for templates that know nothing of tools, or teach a format that is not read here. It is that of
Hermes, which most models have seen.
"""


def tool_format_of(tokenizer: object) -> ToolFormat:
    """How a model writes calls, by what its tokenizer says; the generic way for one that says nothing."""
    return FORMATS[tokenizer.tool_format if isinstance(tokenizer, ToolTokenizer) else "generic"]
