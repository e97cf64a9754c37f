"""Formatted texts in a chat template: how long they may become, before they are made.

A width of 10^9 is nine characters of a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from lolama_core.text.template_budget import Budget, BudgetExceeded, NotSupported

_WIDEST = 1000
# ``%(name)-10.3s``
_DIRECTIVE = re.compile(
    r"%(?:\([^)]*\))?[#0\- +]*(?P<sizes>[\d*]*\.?[\d*]*)[hlL]?(?P<kind>.)", re.DOTALL
)
_NESTED_NAME = re.compile(r"%\([^)]*\(")
_NUMBER = re.compile(r"\d+")
# Escaped, a character may take ten; the largest number has 309 digits.
_ESCAPED, _DIGITS = 10, 350


def allow_percent(budget: Budget, form: str, values: Any) -> None:
    """Whether ``form % values`` may be made.

    Raises:
        BudgetExceeded: if it would be too long.
        NotSupported: for a width that is a value.
    """
    if _NESTED_NAME.search(form):
        raise NotSupported("a name with a parenthesis in a format")
    directives = list(_DIRECTIVE.finditer(form))
    padding = sum(_width(directive["sizes"], "*") for directive in directives)
    escaped = any(directive["kind"] in "ra" for directive in directives)
    if isinstance(values, Mapping):
        longest = len(directives) * _longest(budget, values.values())
    else:
        # Each of them stands at one place.
        parts = values if isinstance(values, tuple) else (values,)
        longest = sum(len(budget.text_of(part)) for part in parts)
    _allow(budget, form, len(directives), padding + longest * (_ESCAPED if escaped else 1))


def allow_format(budget: Budget, form: str, values: Iterable[Any]) -> None:
    """Whether ``form.format(...)`` may be made of these values.

    Raises:
        BudgetExceeded: if it would be too long.
        NotSupported: for a width that is a value.
    """
    fields = [field for field in Formatter().parse(form) if field[1] is not None]
    padding = sum(_width(spec or "", "{") for _, _, spec, _ in fields)
    escaped = any(conversion in ("r", "a") for *_, conversion in fields)
    longest = len(fields) * _longest(budget, values)
    _allow(budget, form, len(fields), padding + longest * (_ESCAPED if escaped else 1))


def _width(sizes: str, variable: str) -> int:
    """What the numbers of one place come to."""
    if variable in sizes:
        raise NotSupported("a width that is a value")
    numbers = _NUMBER.findall(sizes)
    if any(len(number) > 9 or int(number) > _WIDEST for number in numbers):
        raise BudgetExceeded(f"a width of more than {_WIDEST}")
    return sum(map(int, numbers))


def _longest(budget: Budget, values: Iterable[Any]) -> int:
    return max((len(budget.text_of(value)) for value in values), default=0)


def _allow(budget: Budget, form: str, places: int, filled: int) -> None:
    budget.allow(len(form) + filled + (places * _DIGITS if places > 1 else 0))
