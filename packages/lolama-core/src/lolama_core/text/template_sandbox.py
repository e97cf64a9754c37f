"""Jinja's sandbox with a budget.

The sandbox keeps a template from reaching Python; it does not keep it from running for ever or from
filling the memory with one expression. Here every loop, every new text, every new list and every call goes
through a `Budget`, and filters and methods that no chat template needs are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any, NoReturn

from lolama_core.text.template_budget import Budget, BudgetExceeded, NotSupported
from lolama_core.text.template_filters import joined, limited_filters, replaced
from lolama_core.text.template_formats import allow_format, allow_percent

_MAX_TOKENS = 20_000
_GLOBALS = ("range", "dict", "joiner", "cycler")
_METHODS = frozenset(
    "append capitalize casefold center copy count endswith find get index isalnum isalpha isascii isdecimal "
    "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper items join keys ljust lower "
    "lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split "
    "splitlines startswith strip swapcase title upper values zfill".split()
)
# Python searches backwards for a long text in time that grows with the product of both lengths.
_NEEDLE = 100
_BACKWARDS = ("rfind", "rindex", "rpartition", "rsplit")
_PADDED = ("center", "ljust", "rjust", "zfill")
_MOST_BITS = 1024
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
            run = super().wrap_str_format(value)
            if run is None:
                return None

            def measured(*args: Any, **kwargs: Any) -> Any:
                allow_format(self.budget, value.__self__, [*args, *kwargs.values()])
                return self.budget.made(run(*args, **kwargs))

            return measured

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and isinstance(left, int) and isinstance(right, int):
                if left.bit_length() * right > _MOST_BITS:
                    raise BudgetExceeded(f"numbers past 2^{_MOST_BITS}")
            elif operator == "%" and isinstance(left, str):
                allow_percent(self.budget, left, right)
            elif operator == "*":
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
                    raise NotSupported(f"the method {name}")
                if isinstance(owner, str):
                    for hidden in _HIDDEN:
                        kwargs.pop(hidden, None)
                    return self.budget.made(self._text_method(owner, name, target, args, kwargs))
            return self.budget.made(super().call(context, target, *args, **kwargs))

        def _text_method(
            self, owner: str, name: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            """A method that makes a text, once what it will make is known to be bearable."""
            if name in ("replace", "join"):
                run = replaced if name == "replace" else joined
                return run(self.budget, owner, *args, **kwargs)
            texts = [one for one in (*args, *kwargs.values()) if isinstance(one, str)]
            if name in _BACKWARDS and max(map(len, texts), default=0) > _NEEDLE:
                raise BudgetExceeded(f"{name} of a text of more than {_NEEDLE} characters")
            if name in _PADDED and args and isinstance(args[0], int):
                self.budget.allow(args[0])
            return target(*args, **kwargs)

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
    environment.finalize = environment.budget.text_of

    def raise_exception(message: str) -> NoReturn:
        raise TemplateRefusal(message)

    def lipsum(*args: Any, **options: Any) -> NoReturn:
        raise NotSupported("lipsum")

    environment.filters = limited_filters(environment)
    environment.globals = {name: environment.globals[name] for name in _GLOBALS} | {
        "lipsum": lipsum,
        "namespace": Namespace,
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(str(form)[:100]),
    }
    return environment
