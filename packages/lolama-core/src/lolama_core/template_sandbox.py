"""Jinja's sandbox with a budget: so many steps, so many characters, so many seconds.

The sandbox keeps a template from reaching Python; it does not keep it from running for ever or from
filling the memory with one expression. Here every loop, every concatenation, every new list and every
call is counted, and filters and methods that no chat template needs are left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

_MAX_CHARACTERS = 10_000_000
_MAX_VALUES = 200_000
_MAX_SECONDS = 1.0
_FILTERS = (
    "capitalize count d default dictsort first float int items last length lower map reject rejectattr "
    "reverse safe select selectattr title trim unique upper"
).split()
_METHODS = frozenset(
    "append capitalize count endswith find get index isalpha isdigit isspace items join keys lower "
    "lstrip removeprefix removesuffix replace rfind rsplit rstrip split splitlines startswith strip "
    "title upper values".split()
)


class BudgetExceeded(Exception):
    """The template went past its budget."""


class TemplateRefusal(Exception):
    """The template itself refused the conversation, through ``raise_exception``."""


def _texts_within(value: object) -> Iterator[str]:
    """The strings that ``str(value)`` is made of, roughly; raises once there are too many."""
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise BudgetExceeded(f"a list of more than {_MAX_VALUES} values")
        if isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
        else:
            yield part if isinstance(part, str) else "12345678"


def metered_environment() -> Any:
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
                raise BudgetExceeded(f"more than {_MAX_SECONDS:g} s")

        def bounded(self, size: int) -> None:
            if size > _MAX_CHARACTERS:
                raise BudgetExceeded(f"more than {_MAX_CHARACTERS} characters")
            self.tick()

        def bounded_pieces(self, pieces: Iterable[str]) -> Iterator[str]:
            size = 0
            for piece in pieces:
                size += len(piece)
                self.bounded(size)
                yield piece

        def concat(self, pieces: Iterable[str]) -> str:
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
                raise BudgetExceeded(
                    "the method format is not available"
                )  # a width of 10^9 is nine characters
            return None

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or (operator == "%" and isinstance(left, str)):
                raise BudgetExceeded(f"the operator {operator} is not available")
            if operator == "*":
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, int):
                        size = len(other) if hasattr(other, "__len__") else int(other).bit_length()
                        self.bounded(size * abs(one) if hasattr(other, "__len__") else size)
                        if abs(one) > 1 << 64:
                            raise BudgetExceeded("numbers past 2^64")
            elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
                self.bounded(len(left) + len(right))
            return self.measured(super().call_binop(context, operator, left, right))

        def call(self, context: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            self.tick()
            owner = getattr(target, "__self__", None)
            if isinstance(owner, str | bytes | list | dict | tuple):
                if target.__name__ not in _METHODS:
                    raise BudgetExceeded(f"the method {target.__name__} is not available")
                if target.__name__ in ("replace", "join") and isinstance(owner, str):
                    return str(getattr(self, "_" + target.__name__)(owner, *args, **kwargs))
            return self.measured(super().call(context, target, *args, **kwargs))

        def _replace(self, text: Any, old: str, new: str, count: int = -1) -> str:
            whole = str(text)
            self.bounded(len(whole) + whole.count(old) * len(new))
            return whole.replace(old, new, -1 if count is None else count)

        def _join(self, separator: str, parts: Iterable[Any]) -> str:
            parts = [self.text_of(part) for part in parts]
            self.bounded(sum(map(len, parts)) + len(separator) * len(parts))
            return separator.join(parts)

        def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
            return str(super()._generate(Metered().visit(source), *args, **kwargs))

    def raise_exception(message: str) -> NoReturn:
        raise TemplateRefusal(message)

    def tojson(value: Any, indent: int | None = None, **options: Any) -> str:
        # Not Jinja's own, which escapes for HTML. Same options as transformers'.
        environment.bounded((indent or 0) * 100)
        environment.measured(value)
        return json.dumps(
            value, ensure_ascii=options.pop("ensure_ascii", False), indent=indent, **options
        )

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
        "sort": lambda *args, **options: environment.measured(
            original["sort"](environment, *args, **options)
        ),
        "replace": environment._replace,
        "join": lambda parts, d="", attribute=None: environment._join(
            d, (p[attribute] for p in parts) if attribute is not None else parts
        ),
    }
    environment.globals = {
        name: environment.globals[name] for name in ("range", "dict", "namespace")
    } | {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(str(form)[:100]),
    }
    return environment
