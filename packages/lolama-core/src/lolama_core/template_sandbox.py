"""Jinja's sandbox with a budget.

The sandbox keeps a template from reaching Python; it does not keep it from running for ever or from
filling the memory with one expression. Here every loop, every new text, every new list and every call goes
through a `Budget`, and filters and methods that no chat template needs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from itertools import islice
from typing import Any, NoReturn

from lolama_core.template_budget import Budget, BudgetExceeded

_MAX_TOKENS = 20_000
_FILTERS = (
    "capitalize count d default dictsort first float int items last length lower map reject rejectattr "
    "reverse safe select selectattr title trim unique upper"
).split()
_METHODS = frozenset(
    "append capitalize count endswith find get index isalpha isdigit isspace items join keys lower "
    "lstrip removeprefix removesuffix replace rfind rsplit rstrip split splitlines startswith strip "
    "title upper values".split()
)
# Python searches backwards for a long text in time that grows with the product of both lengths.
_NEEDLE = 100
_MAX_INDENT = 100
# What Jinja itself passes to a call in a loop or a block.
_HIDDEN = ("_loop_vars", "_block_vars")


class TemplateRefusal(Exception):
    """The template itself refused the conversation, through ``raise_exception``."""


def metered_environment() -> Any:
    """Jinja's immutable sandbox, with a `Budget` as its ``budget``.

    A function, so that jinja2 is imported when it is needed.
    """
    import jinja2.nodes as nodes
    from jinja2 import ext
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace
    from jinja2.visitor import NodeTransformer

    def through(filter_name: str, node: Any) -> nodes.Expr:
        return nodes.Filter(node, filter_name, [], [], None, None, lineno=node.lineno)

    class Metered(NodeTransformer):
        """Sends loops, ``~``, slices and new lists through the budget: compiled templates hide them."""

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            node.iter = through("each", node.iter)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            return through("concatenated", nodes.List(node.nodes, lineno=node.lineno))

        def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
            self.generic_visit(node)
            return through("made", node) if isinstance(node.arg, nodes.Slice) else node

        def visit_List(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
            self.generic_visit(node)
            stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
            return node if stored else through("made", node)

        visit_Dict = visit_Tuple = visit_List

    class Generation(ext.Extension):
        """``{% generation %}``, with which transformers finds out which part the model wrote."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance's)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class QuietNamespace(Namespace):
        """Its text does not say what it holds, which may hold it twice."""

        def __repr__(self) -> str:
            return "<namespace>"

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**", "%"])

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.budget = Budget()

        def concat(self, pieces: Iterable[str]) -> str:
            return self.budget.joined(pieces)

        def concatenated(self, parts: list[Any]) -> str:
            return self.concat(map(self.budget.text_of, parts))

        def wrap_str_format(self, value: Any) -> Any:
            if getattr(value, "__name__", "") in ("format", "format_map"):
                # A width of 10^9 is nine characters.
                raise BudgetExceeded("the method format is not available")
            return None

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or (operator == "%" and isinstance(left, str)):
                raise BudgetExceeded(f"the operator {operator} is not available")
            if operator == "*":
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, int):
                        size = len(other) if hasattr(other, "__len__") else int(other).bit_length()
                        self.budget.allow(size * abs(one) if hasattr(other, "__len__") else size)
                        if abs(one) > 1 << 64:
                            raise BudgetExceeded("numbers past 2^64")
            elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
                self.budget.allow(len(left) + len(right))
            return self.budget.made(super().call_binop(context, operator, left, right))

        def call(self, context: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            # A macro finds what it is given in new lists, ``varargs`` and ``kwargs``.
            given = [*args, *(kwargs[name] for name in kwargs if name not in _HIDDEN)]
            self.budget.measured(given)
            owner = getattr(target, "__self__", None)
            if isinstance(owner, str | bytes | list | dict | tuple):
                name = target.__name__
                if name not in _METHODS:
                    raise BudgetExceeded(f"the method {name} is not available")
                if isinstance(owner, str) and name in ("replace", "join", "rfind", "rsplit"):
                    for hidden in _HIDDEN:
                        kwargs.pop(hidden, None)
                    if name == "replace":
                        return replace(owner, *args, **kwargs)
                    if name == "join":
                        return join_method(owner, *args, **kwargs)
                    if max((len(s) for s in given if isinstance(s, str)), default=0) > _NEEDLE:
                        raise BudgetExceeded(f"{name} of a text of more than {_NEEDLE} characters")
                    return self.budget.made(target(*args, **kwargs))
            return self.budget.made(super().call(context, target, *args, **kwargs))

        def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            # Compiling takes a hundred times as long as finding the tokens.
            if len(list(islice(self.lexer.tokenize(source), _MAX_TOKENS + 1))) > _MAX_TOKENS:
                raise BudgetExceeded(f"more than {_MAX_TOKENS} tokens")
            return super().from_string(source, *args, **kwargs)

        def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
            return str(super()._generate(Metered().visit(source), *args, **kwargs))

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[ext.loopcontrols, Generation],
        optimized=False,
    )
    budget = environment.budget
    environment.finalize = budget.text_of
    original = environment.filters

    def raise_exception(message: str) -> NoReturn:
        raise TemplateRefusal(message)

    def replace(text: Any, old: str, new: str, count: int | None = None) -> str:
        whole = budget.text_of(text)
        most = whole.count(old) if count is None or count < 0 else count
        budget.allow(len(whole) + min(most, len(whole) + 1) * len(new))
        replaced: str = budget.made(whole.replace(old, new, -1 if count is None else count))
        return replaced

    def join_method(separator: str, parts: Iterable[Any]) -> str:
        texts = [budget.text_of(part) for part in budget.each(parts)]
        budget.allow(sum(map(len, texts)) + len(separator) * len(texts))
        return budget.joined([separator.join(texts)])

    def join(parts: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            parts = (environment.getitem(part, attribute) for part in parts)
        return join_method(d, parts)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Not Jinja's own, which escapes for HTML. Same options as transformers'.
        if (len(indent) if isinstance(indent, str) else indent or 0) > _MAX_INDENT:
            raise BudgetExceeded(f"an indent of more than {_MAX_INDENT}")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return budget.joined(encoder.iterencode(budget.measured(value)))

    def indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = budget.text_of(text)
        margin = width if isinstance(width, str) else " " * min(width, 1000)
        budget.allow(len(text) + len(margin) * (text.count("\n") + 1))
        return budget.joined([original["indent"](text, margin, first, blank)])

    def sort(values: Iterable[Any], *args: Any, **options: Any) -> list[Any]:
        return budget.listed(original["sort"](environment, budget.listed(values), *args, **options))

    def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's own, whose result is measured."""

        @wraps(function)  # copies the marks by which Jinja knows what else to pass
        def run(*args: Any, **options: Any) -> Any:
            return budget.made(function(*args, **options))

        return run

    environment.filters = {name: bounded(original[name]) for name in _FILTERS} | {
        "concatenated": environment.concatenated,
        "each": budget.each,
        "indent": indent,
        "join": join,
        "list": budget.listed,
        "made": budget.made,
        "replace": replace,
        "sort": sort,
        "string": budget.text_of,
        "tojson": tojson,
    }
    environment.globals = {name: environment.globals[name] for name in ("range", "dict")} | {
        "namespace": QuietNamespace,
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(str(form)[:100]),
    }
    return environment
