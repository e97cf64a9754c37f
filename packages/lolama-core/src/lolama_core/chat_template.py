"""Chat templates: untrusted Jinja programs that turn a conversation into text.

A template comes with a model, so it is run in Jinja's sandbox, with the little it needs and a budget: so
many steps, so many characters, so many seconds. Two groups of its inputs are kept apart. Control tokens
that the *template* writes become placeholders; the same characters in a *message* stay text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Message

_MAX_CHARACTERS = 10_000_000
_MAX_VALUES = 200_000
_MAX_SOURCE = 1_000_000
_MAX_SECONDS = 1.0
_FILTERS = (
    "capitalize count d default dictsort first float int items last length lower map reject rejectattr "
    "reverse safe select selectattr title trim unique upper"
).split()
_METHODS = frozenset(
    "append capitalize count endswith find get index isalpha isdigit isspace items join keys lower lstrip "
    "removeprefix removesuffix replace rfind rsplit rstrip split splitlines startswith strip title upper values"
    .split()
)


class _Exceeded(Exception):
    """The template went past its budget."""


class _TemplateError(Exception):
    """The template itself refused the conversation, through ``raise_exception``."""


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
            self._environment = _environment()
            self._template = self._environment.from_string(source)
        except (TemplateError, RecursionError, _Exceeded, MemoryError, ValueError, SyntaxError) as error:
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
        except _TemplateError as error:
            raise _refused(f"refuses this conversation: {error}") from None
        except _Exceeded as error:
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


def _texts_within(value: object) -> Iterator[str]:
    """The strings that ``str(value)`` is made of, roughly; raises once there are too many."""
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise _Exceeded(f"a list of more than {_MAX_VALUES} values")
        if isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
        else:
            yield part if isinstance(part, str) else "12345678"


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


def _environment() -> Any:
    """Jinja's immutable sandbox, with a budget. A function, so that jinja2 is imported when needed."""
    import jinja2.nodes as nodes
    from jinja2 import ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    class Metered(NodeTransformer):
        """Sends loops, ``~`` and new lists through the meter: compiled templates make them unseen."""

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, "metered", [], [], None, None, lineno=node.lineno)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            parts = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(parts, "concatenated", [], [], None, None, lineno=node.lineno)

        def visit_List(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
            self.generic_visit(node)
            if isinstance(node, nodes.Tuple) and node.ctx != "load":
                return node
            return nodes.Filter(node, "measured", [], [], None, None, lineno=node.lineno)

        visit_Dict = visit_Tuple = visit_List

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**", "%"])
        deadline = float("inf")

        def start(self) -> None:
            self.deadline = time.monotonic() + _MAX_SECONDS

        def tick(self) -> None:
            if time.monotonic() > self.deadline:
                raise _Exceeded(f"more than {_MAX_SECONDS:g} s")

        def bounded(self, size: int) -> None:
            if size > _MAX_CHARACTERS:
                raise _Exceeded(f"more than {_MAX_CHARACTERS} characters")
            self.tick()

        def bounded_pieces(self, pieces: Iterable[str]) -> Iterator[str]:
            size = 0
            for piece in pieces:
                size += len(piece)
                self.bounded(size)
                yield piece

        def concat(self, pieces: Iterable[str]) -> str:  # type: ignore[override]
            return "".join(self.bounded_pieces(pieces))

        def metered(self, values: Any) -> Iterator[Any]:
            for value in values:
                self.tick()
                yield value

        def measured(self, value: Any) -> Any:
            # Every list is measured as it is made: one that holds another twice, sixty times over, would
            # take for ever to print or to compare.
            if isinstance(value, list | tuple | dict):
                self.bounded(sum(map(len, _texts_within(value))))
            return value

        def text_of(self, value: Any) -> str:
            return value if isinstance(value, str) else str(self.measured(value))

        def concatenated(self, parts: list[Any]) -> str:
            return self.concat(map(self.text_of, parts))

        def wrap_str_format(self, value: Any) -> Any:
            if getattr(value, "__name__", "") in ("format", "format_map"):
                raise _Exceeded("the method format is not available")  # a width of 10^9 is nine characters
            return None

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or (operator == "%" and isinstance(left, str)):
                raise _Exceeded(f"the operator {operator} is not available")
            if operator == "*":
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, int):
                        size = len(other) if hasattr(other, "__len__") else int(other).bit_length()
                        self.bounded(size * abs(one) if hasattr(other, "__len__") else size)
                        if abs(one) > 1 << 64:
                            raise _Exceeded("numbers past 2^64")
            elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
                self.bounded(len(left) + len(right))
            return self.measured(super().call_binop(context, operator, left, right))

        def call(self, context: Any, target: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            self.tick()
            owner = getattr(target, "__self__", None)
            if isinstance(owner, str | bytes | list | dict | tuple):
                if target.__name__ not in _METHODS:
                    raise _Exceeded(f"the method {target.__name__} is not available")
                if target.__name__ in ("replace", "join") and isinstance(owner, str):
                    return getattr(self, "_" + target.__name__)(owner, *args, **kwargs)
            return self.measured(super().call(context, target, *args, **kwargs))

        def _replace(self, text: Any, old: str, new: str, count: int = -1) -> str:
            text = str(text)
            self.bounded(len(text) + text.count(old) * len(new))
            return text.replace(old, new, -1 if count is None else count)

        def _join(self, separator: str, parts: Iterable[Any]) -> str:
            parts = [self.text_of(part) for part in parts]
            self.bounded(sum(map(len, parts)) + len(separator) * len(parts))
            return separator.join(parts)

        def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
            metered: str = super()._generate(Metered().visit(source), *args, **kwargs)
            return metered

    def raise_exception(message: str) -> NoReturn:
        raise _TemplateError(message)

    def tojson(value: Any, indent: int | None = None, **options: Any) -> str:
        # Not Jinja's own, which escapes for HTML. Same options as transformers'.
        environment.bounded((indent or 0) * 100)
        environment.measured(value)
        return json.dumps(value, ensure_ascii=options.pop("ensure_ascii", False), indent=indent, **options)

    def indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = environment.text_of(text)
        margin = width if isinstance(width, str) else " " * min(width, 1000)
        environment.bounded(len(text) + len(margin) * (text.count("\n") + 1))
        return str(original["indent"](text, margin, first, blank))

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols], optimized=False
    )
    environment.finalize = lambda value: environment.text_of(value)
    original = environment.filters
    environment.filters = {name: original[name] for name in _FILTERS} | {
        "tojson": tojson,
        "indent": indent,
        "metered": environment.metered,
        "measured": environment.measured,
        "concatenated": environment.concatenated,
        "string": environment.text_of,
        "list": lambda values: environment.measured(list(environment.metered(values))),
        "sort": lambda *args, **options: environment.measured(original["sort"](environment, *args, **options)),
        "replace": environment._replace,
        "join": lambda parts, d="", attribute=None: environment._join(
            d, (p[attribute] for p in parts) if attribute is not None else parts
        ),
    }
    environment.globals = {name: environment.globals[name] for name in ("range", "dict", "namespace")} | {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(str(form)[:100]),
    }
    return environment
