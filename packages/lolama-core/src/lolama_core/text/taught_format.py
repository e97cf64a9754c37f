"""In which format a chat template has its model call tools.

A template tells its model how to call, and writes the calls of earlier turns in the same way. So a call is
rendered, and the format that reads it back is the template's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message
from lolama_core.text.tool_calls import ToolCallParser
from lolama_core.text.tool_formats import FORMATS
from lolama_core.text.tool_messages import PROBE

_NAME = PROBE["function"]["name"]
_GIVEN = {"lolama_value": "lolama"}
_QUESTION: Message = {"role": "user", "content": "?"}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "lolama123",
            "type": "function",
            "function": {"name": _NAME, "arguments": _GIVEN},
        }
    ],
}
# Some templates tell how to call, and leave calls of earlier turns out.
_TOLD = re.compile(r"""<tool_call>\s*\{+\s*["']name["']\s*:[^{}]*["']arguments["']""")

Render: TypeAlias = Callable[[Sequence[Message], bool], str]
"""Messages, and whether to end where the reply begins → their text, with `PROBE` as a tool."""


def taught_format(render: Render) -> str:
    """The name of the format that a template teaches; ``generic`` if that is none that is read here."""
    try:
        prompt = render([_QUESTION], True)
    except ModelError:
        prompt = ""
    try:
        called = render([_QUESTION, _CALL], False)
    except ModelError:
        called = ""
    if _reads("hermes", called):
        return "hermes"
    if _reads("mistral", called):
        return "mistral-args" if f"[TOOL_CALLS]{_NAME}" in called else "mistral"
    reply = called.removeprefix(prompt).lstrip()
    if reply.startswith("{") and _reads("llama", reply):
        return "llama"
    return "hermes" if _TOLD.search(prompt) else "generic"


def _reads(name: str, text: str) -> bool:
    parser = ToolCallParser(FORMATS[name], [_NAME])
    parser.push(text)
    parser.finish()
    return any(call.arguments == _GIVEN for call in parser.calls)
