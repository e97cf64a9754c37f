"""Chat templates: untrusted Jinja programs that turn a conversation into text.

A template comes with a model, so it is run in Jinja's sandbox, with the little it needs and a budget: so
many steps, so many characters, so many seconds. Two groups of its inputs are kept apart. Control tokens
that the *template* writes become placeholders; the same characters in a *message* stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message
from lolama_core.template_sandbox import BudgetExceeded, TemplateRefusal, metered_environment

_MAX_SOURCE = 1_000_000


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: Jinja source, with the extensions that transformers offers: ``break`` and ``continue``,
            ``raise_exception``, ``strftime_now`` and a plain ``tojson``.

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
        except (
            TemplateError,
            RecursionError,
            BudgetExceeded,
            MemoryError,
            ValueError,
            SyntaxError,
        ) as error:
            raise _refused(f"is not valid: {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        control_tokens: Mapping[str, str],
        bos_token: str = "",
        eos_token: str = "",
    ) -> str:
        """The conversation as text, with each control token that the template wrote replaced.

        Args:
            messages: The conversation; its text is taken literally.
            add_generation_prompt: End where the assistant's reply begins.
            control_tokens: Text of a control token → what to write in its place.
            bos_token, eos_token: What the template calls so.

        Raises:
            ModelError: if the template fails, refuses the conversation, or goes past its budget.
        """
        from jinja2 import TemplateError

        every_text = "".join(_texts(messages))
        mark = next(chr(c) for c in range(0xF0000, 0xFFFFE) if chr(c) not in every_text)
        guard = _Guard(control_tokens, mark)
        self._environment.start()
        try:
            text = "".join(
                self._environment.bounded_pieces(
                    self._template.generate(
                        messages=guard.protect(list(messages)),
                        add_generation_prompt=add_generation_prompt,
                        bos_token=bos_token,
                        eos_token=eos_token,
                        tools=None,
                        documents=None,
                    )
                )
            )
        except TemplateRefusal as error:
            raise _refused(f"refuses this conversation: {error}") from None
        except BudgetExceeded as error:
            raise _refused(f"goes past its budget: {error}") from None
        except (TemplateError, RecursionError, MemoryError, ArithmeticError) as error:
            raise _refused(f"fails: {error or type(error).__name__}") from None
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise _refused(f"fails: {type(error).__name__}: {error}") from None
        return guard.restore(text)


def _refused(reason: str) -> ModelError:
    return ModelError("chat template", " ".join(reason.split())[:300], "use --raw to do without it")


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


class _Guard:
    """Keeps control tokens spelled out in messages apart from those a template writes.

    Before rendering, a mark that occurs in no message is put inside each such spelling (and after a
    beginning of one at the end of a text, which the next text might complete). Whatever is found whole
    afterwards was written by the template. Texts without such spellings reach the template untouched, so
    its tests and trims see what transformers' would.
    """

    def __init__(self, control_tokens: Mapping[str, str], mark: str) -> None:
        self._control_tokens, self._mark = control_tokens, mark
        # Longest first, as the tokenizer matches them.
        spellings = sorted(filter(None, control_tokens), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, spellings))) if spellings else None
        self._beginnings = {s[:length] for s in spellings for length in range(1, len(s))}
        self._longest = max(map(len, spellings), default=0)

    def protect(self, value: Any) -> Any:
        """A copy of a value made of lists and mappings, with the marks put into its strings."""
        if isinstance(value, str):
            return self._protect_text(value)
        if isinstance(value, Mapping):
            return {key: self.protect(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.protect(part) for part in value]
        return value

    def _protect_text(self, text: str) -> str:
        if self._any is None:
            return text
        # Overlapping spellings: break each one where it starts, then look again from the next character.
        pieces, at = [], 0
        while found := self._any.search(text, at):
            pieces += [text[at : found.start() + 1], self._mark]
            at = found.start() + 1
        pieces.append(text[at:])
        text = "".join(pieces)
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-length:] in self._beginnings:
                return text + self._mark
        return text

    def restore(self, text: str) -> str:
        """Replace the template's control tokens, then take the marks out."""
        if self._any is not None:
            text = self._any.sub(lambda match: self._control_tokens[match[0]], text)
        return text.replace(self._mark, "")
