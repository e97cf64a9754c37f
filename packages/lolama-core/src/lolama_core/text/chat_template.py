"""Chat templates: untrusted Jinja programs that turn a conversation into text.

A template comes with a model, so it is run in Jinja's sandbox, with the little it needs and a budget of
characters and seconds. Two groups of its inputs are kept apart: control tokens that the *template* writes
become placeholders; the same characters in a *message*, or in what describes a tool, stay text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.tools import ToolDefinition
from lolama_core.protocols.types import Message
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.template_budget import BudgetExceeded, NotSupported
from lolama_core.text.template_sandbox import TemplateRefusal, metered_environment
from lolama_core.text.thinking import TAGS, thinking_switch
from lolama_core.text.tool_messages import (
    PROBE,
    template_tools,
    template_turns,
    texts_in,
    tool_names,
)

_MAX_SOURCE = 1_000_000
_NONE: Mapping[str, str] = MappingProxyType({})
_CHOSEN = ("role", "type")
# What a template asks tools and calls for; a name of a parameter is marked like any text.
_STRUCTURE = frozenset(
    "role type content text name id function arguments tool_calls tool_call_id reasoning_content description "
    "parameters properties required items enum anyOf return default".split()
)


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: Jinja source, with the extensions that transformers offers: ``break`` and ``continue``,
            ``raise_exception``, ``strftime_now`` and a plain ``tojson``.

    Attributes:
        switch: The variable that turns thinking on and off, if it has one.
        thinks: Whether replies may begin with a thought.

    Raises:
        ModelError: if it is not valid Jinja, or too large.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import TemplateError

        if len(source) > _MAX_SOURCE:
            raise _refused(f"is {len(source)} characters long, more than {_MAX_SOURCE}")
        try:
            self._environment = metered_environment()
            self._template = self._environment.from_string(source)
            self.switch = thinking_switch(source, self._environment)
            self._tool_names = tool_names(source, self._environment)
        except (
            TemplateError,
            RecursionError,
            BudgetExceeded,
            MemoryError,
            ValueError,
            SyntaxError,
        ) as error:
            raise _refused(f"is not valid: {error}") from None
        self.thinks = self.switch is not None or any(tag in source for tag in TAGS)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        control_tokens: Mapping[str, str],
        special_tokens: Mapping[str, str] = _NONE,
        thinking: bool | None = None,
        tools: Sequence[ToolDefinition] | None = None,
    ) -> str:
        """The conversation as text, with each control token that the template wrote replaced.

        Args:
            messages: The conversation; its text is taken literally.
            add_generation_prompt: End where the assistant's reply begins.
            control_tokens: Text of a control token → what to write in its place.
            special_tokens: What the template calls ``bos_token``, ``pad_token`` and so on. A name that is not
                here is undefined, as in transformers.
            thinking: What `switch` is set to; None to leave it undefined.
            tools: Functions that the model may call; their text is taken literally, too.

        Raises:
            ModelError: if the template fails, refuses the conversation, or goes past its budget.
            UsageError: if tools or calls hold what no JSON could.
        """
        turns, known = template_turns(messages), template_tools(tools)
        every_text = "".join(texts_in([turns, known]))
        mark = next(
            c for c in map(chr, range(0xF0000, 0xFFFFE)) if not _spelled(c).search(every_text)
        )
        guard = _Guard(control_tokens, mark)
        self._environment.budget.start(len(every_text))
        settings: dict[str, Any] = {
            **special_tokens,
            "add_generation_prompt": add_generation_prompt,
            "documents": None,
        }
        if thinking is not None and self.switch is not None:
            settings[self.switch] = thinking
        inputs = guard.protected(turns, known)
        text = self._run(inputs, settings)
        wary = guard.protected(turns, known, wary=True)
        if wary != inputs:
            # A template may cut and join: "<" and "/s>" from two parts, or around a piece it takes out.
            safe = self._run(wary, settings)
            if guard.found(safe) != guard.found(text):
                text = safe
        if is_unicode(every_text) and not is_unicode(text):
            raise _refused("writes text that is not Unicode")
        return guard.restore(text)

    def hears_tools(self, special_tokens: Mapping[str, str] = _NONE) -> bool:
        """Whether the template tells the model which tools there are: some leave them out."""
        if not self._tool_names:
            return False
        asked: list[Message] = [{"role": "user", "content": "?"}]
        texts = []
        for tools in (None, [PROBE]):
            try:
                text = self.render(
                    asked,
                    add_generation_prompt=True,
                    control_tokens=_NONE,
                    special_tokens=special_tokens,
                    tools=tools,
                )
            except ModelError:
                text = ""
            texts.append(text)
        without, told = texts
        return PROBE["function"]["name"] in told and told != without

    def _run(self, inputs: tuple[Any, Any], settings: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        messages, tools = inputs
        # As in transformers, ``tools`` is None where there are none; other names are undefined then.
        named = {"tools": tools} | ({} if tools is None else dict.fromkeys(self._tool_names, tools))
        try:
            pieces = self._template.generate({**settings, **named, "messages": messages})
            return "".join(self._environment.budget.pieces(pieces))
        except TemplateRefusal as error:
            raise _refused(f"refuses this conversation: {error}") from None
        except NotSupported as error:
            raise _refused(f"uses {error}, which is not supported here") from None
        except BudgetExceeded as error:
            raise _refused(f"goes past its budget: {error}") from None
        except (TemplateError, RecursionError, MemoryError, ArithmeticError) as error:
            raise _refused(f"fails: {error or type(error).__name__}") from None
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise _refused(f"fails: {type(error).__name__}: {error}") from None


def _refused(reason: str) -> ModelError:
    return ModelError(
        "chat template", " ".join(reason.split())[:300], "use `generate` to do without it"
    )


def _spelled(mark: str) -> re.Pattern[str]:
    """A mark as it is, or as the text of a list or JSON spells it."""
    spellings = (mark, ascii(mark)[1:-1], json.dumps(mark)[1:-1])
    return re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)


class _Guard:
    """Keeps control tokens spelled out in messages apart from those a template writes.

    Before rendering, a mark that occurs in no message is put behind the first character of each such
    spelling; whatever is found whole afterwards was written by the template. Texts without one reach the
    template untouched, so its tests and trims see what transformers' would.

    Being *wary*, the mark follows every character with which a spelling begins, so that no piece of a
    message can become part of one however the template cuts and joins. That may change what the template
    sees, so it only serves to find out whether the untouched messages led to the same control tokens.
    """

    def __init__(self, control_tokens: Mapping[str, str], mark: str) -> None:
        self._control_tokens, self._mark = control_tokens, mark
        # Longest first, as the tokenizer matches them.
        spellings = sorted(filter(None, control_tokens), key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, spellings)) or "(?!)")
        # Looking ahead finds overlapping spellings too.
        self._starts = re.compile(f"(?={self._whole.pattern}).", re.DOTALL)
        firsts = {re.escape(spelling[0]) for spelling in spellings}
        self._firsts = re.compile("|".join(firsts) or "(?!)")

    def protected(
        self, messages: list[Any], tools: list[Any] | None, *, wary: bool = False
    ) -> tuple[Any, Any]:
        """Copies with the marks put in."""
        pattern = self._firsts if wary else self._starts
        return self._marked(messages, pattern, _CHOSEN), self._marked(tools, pattern, ())

    def _marked(self, value: Any, pattern: re.Pattern[str], chosen: Collection[str]) -> Any:
        """A copy with the marks put in.

        Args:
            value: What lists and mappings are made of.
            pattern: Behind what a mark goes.
            chosen: Keys of values from which a template builds tokens (roles), or by which it chooses
                (types): being wary changes none.
        """
        if isinstance(value, str):
            return pattern.sub(lambda match: match[0] + self._mark, value)
        if isinstance(value, Mapping):
            copy = {}
            for key, part in value.items():
                # Names of parameters are anybody's; those that a template asks for spell no control token.
                name = self._marked(key, pattern, ()) if key not in _STRUCTURE else key
                kind = self._starts if key in chosen else pattern
                copy[name] = self._marked(part, kind, () if key == "tool_calls" else chosen)
            return copy
        if isinstance(value, list | tuple):
            return [self._marked(part, pattern, chosen) for part in value]
        return value

    def found(self, text: str) -> list[str]:
        """The control tokens in a rendered text, in order."""
        return self._whole.findall(text)

    def restore(self, text: str) -> str:
        """Replace the template's control tokens, then take the marks out."""
        text = self._whole.sub(lambda match: self._control_tokens[match[0]], text)
        return _spelled(self._mark).sub("", text)
