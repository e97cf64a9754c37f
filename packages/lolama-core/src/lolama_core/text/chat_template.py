"""Chat templates: untrusted Jinja programs that turn a conversation into text.

A template comes with a model, so it is run in Jinja's sandbox, with the little it needs and a budget of
characters and seconds. Two groups of its inputs are kept apart: control tokens that the *template* writes
become placeholders; the same characters in a *message* stay text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.template_budget import BudgetExceeded, NotSupported
from lolama_core.text.template_sandbox import TemplateRefusal, metered_environment
from lolama_core.text.thinking import TAGS, thinking_switch

_MAX_SOURCE = 1_000_000
_NONE: Mapping[str, str] = MappingProxyType({})


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
    ) -> str:
        """The conversation as text, with each control token that the template wrote replaced.

        Args:
            messages: The conversation; its text is taken literally.
            add_generation_prompt: End where the assistant's reply begins.
            control_tokens: Text of a control token → what to write in its place.
            special_tokens: What the template calls ``bos_token``, ``pad_token`` and so on. A name that is not
                here is undefined, as in transformers.
            thinking: What `switch` is set to; None to leave it undefined.

        Raises:
            ModelError: if the template fails, refuses the conversation, or goes past its budget.
        """
        every_text = "".join(_texts(messages))
        mark = next(
            c for c in map(chr, range(0xF0000, 0xFFFFE)) if not _spelled(c).search(every_text)
        )
        guard = _Guard(control_tokens, mark)
        self._environment.budget.start(len(every_text))
        settings: dict[str, Any] = {
            **special_tokens,
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        if thinking is not None and self.switch is not None:
            settings[self.switch] = thinking
        text = self._run(guard.protect(list(messages)), settings)
        wary = guard.protect(list(messages), wary=True)
        if wary is not None:
            # A template may cut and join: "<" and "/s>" from two parts, or around a piece it takes out.
            safe = self._run(wary, settings)
            if guard.found(safe) != guard.found(text):
                text = safe
        if is_unicode(every_text) and not is_unicode(text):
            raise _refused("writes text that is not Unicode")
        return guard.restore(text)

    def _run(self, messages: Any, settings: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            pieces = self._template.generate({**settings, "messages": messages})
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


def _texts(value: object) -> Iterator[str]:
    """All strings in a value made of lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


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

    def protect(self, messages: list[Any], *, wary: bool = False) -> list[Any] | None:
        """A copy with the marks put in; None if being wary makes no difference."""
        pattern = self._firsts if wary else self._starts
        changed: list[Any] = self._marked(messages, pattern)
        return None if wary and changed == self._marked(messages, self._starts) else changed

    def _marked(self, value: Any, pattern: re.Pattern[str]) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: match[0] + self._mark, value)
        if isinstance(value, Mapping):
            # A template builds tokens from roles, and chooses by types.
            return {
                key: self._marked(part, self._starts if key in ("role", "type") else pattern)
                for key, part in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._marked(part, pattern) for part in value]
        return value

    def found(self, text: str) -> list[str]:
        """The control tokens in a rendered text, in order."""
        return self._whole.findall(text)

    def restore(self, text: str) -> str:
        """Replace the template's control tokens, then take the marks out."""
        text = self._whole.sub(lambda match: self._control_tokens[match[0]], text)
        return _spelled(self._mark).sub("", text)
