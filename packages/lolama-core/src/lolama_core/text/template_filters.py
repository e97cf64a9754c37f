"""Jinja's filters with a budget; those that are left out say so when they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, NoReturn

from lolama_core.text.template_budget import Budget, BudgetExceeded, NotSupported
from lolama_core.text.template_formats import allow_percent

# Their results are measured; no more is needed.
_PLAIN = (
    "abs capitalize count d default dictsort first float int items last length lower map reject rejectattr "
    "reverse safe select selectattr title trim unique upper wordcount"
).split()
_MAX_INDENT = 100
_MOST_DIGITS = 100
_MOST_ROWS = 10_000


def replaced(budget: Budget, text: Any, old: str, new: str, count: int | None = None) -> str:
    """``text.replace(old, new, count)``."""
    whole = budget.text_of(text)
    most = whole.count(old) if count is None or count < 0 else count
    budget.allow(len(whole) + min(most, len(whole) + 1) * len(new))
    made: str = budget.made(whole.replace(old, new, -1 if count is None else count))
    return made


def joined(budget: Budget, separator: str, parts: Iterable[Any]) -> str:
    """``separator.join(parts)``, whatever the parts are."""
    texts = [budget.text_of(part) for part in budget.each(parts)]
    budget.allow(sum(map(len, texts)) + len(separator) * len(texts))
    return budget.joined([separator.join(texts)])


def limited_filters(environment: Any) -> dict[str, Callable[..., Any]]:
    """Filters for a sandbox that has a ``budget``, by name, in place of Jinja's own."""
    from jinja2.filters import do_batch, make_attrgetter, sync_do_slice

    budget: Budget = environment.budget
    original = environment.filters

    def replace(text: Any, old: str, new: str, count: int | None = None) -> str:
        return replaced(budget, text, old, new, count)

    def join(parts: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            parts = (environment.getitem(part, attribute) for part in parts)
        return joined(budget, d, parts)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes for HTML. This one has the options of transformers'.
        if (len(indent) if isinstance(indent, str) else indent or 0) > _MAX_INDENT:
            raise BudgetExceeded(f"an indent of more than {_MAX_INDENT}")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return budget.joined(encoder.iterencode(budget.measured(value)))

    def indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = budget.text_of(text + "")  # as Jinja, which refuses all but texts
        margin = width if isinstance(width, str) else " " * min(width, 1000)
        budget.allow(len(text) + len(margin) * (text.count("\n") + 1))
        return budget.joined([original["indent"](text, margin, first, blank)])

    def form(text: Any, *args: Any, **named: Any) -> str:
        text = budget.text_of(text)
        allow_percent(budget, text, named or args)
        return budget.joined([original["format"](text, *args, **named)])

    def center(text: Any, width: int = 80) -> str:
        text = budget.text_of(text)
        budget.allow(width)
        return budget.joined([text.center(width)])

    def total(values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if attribute is not None:
            values = map(make_attrgetter(environment, attribute), values)
        if isinstance(start, str):
            raise TypeError("sum() can't sum strings")
        for value in budget.each(values):
            start = environment.call_binop(None, "+", start, value)
        return start

    def rounded(value: Any, precision: int = 0, method: str = "common") -> Any:
        if abs(precision) > _MOST_DIGITS:
            raise BudgetExceeded(f"a precision of more than {_MOST_DIGITS} digits")
        return budget.made(original["round"](value, precision, method))

    def rows(cut: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """A filter that cuts a list into lists."""

        def run(values: Iterable[Any], size: int, fill_with: Any = None) -> Iterator[Any]:
            if size > _MOST_ROWS:
                raise BudgetExceeded(f"more than {_MOST_ROWS} rows or columns")
            for row in budget.each(cut(budget.listed(values), size, fill_with)):
                yield budget.made(row)

        return run

    def of_list(name: str) -> Callable[..., Any]:
        """A filter that looks at every value of a list."""

        def run(values: Iterable[Any], *args: Any, **options: Any) -> Any:
            return budget.made(original[name](environment, budget.listed(values), *args, **options))

        return run

    def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's own, whose result is measured."""

        @wraps(function)  # copies the marks by which Jinja knows what else to pass
        def run(*args: Any, **options: Any) -> Any:
            return budget.made(function(*args, **options))

        return run

    def left_out(name: str) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> NoReturn:
            raise NotSupported(f"the filter {name}")

        return run

    return (
        {name: left_out(name) for name in original}
        | {name: bounded(original[name]) for name in _PLAIN}
        | {name: of_list(name) for name in ("groupby", "max", "min")}
        | {"batch": rows(do_batch), "slice": rows(sync_do_slice)}
        | {
            "center": center,
            "concatenated": environment.concatenated,
            "each": budget.each,
            "format": form,
            "indent": indent,
            "join": join,
            "list": budget.listed,
            "made": budget.made,
            "replace": replace,
            "round": rounded,
            "sort": lambda values, *args, **options: budget.listed(
                original["sort"](environment, budget.listed(values), *args, **options)
            ),
            "string": budget.text_of,
            "sum": total,
            "tojson": tojson,
        }
    )
