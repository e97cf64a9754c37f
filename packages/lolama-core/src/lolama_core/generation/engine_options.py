"""What an engine may be made with, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.text.plain_numbers import whole_number


class EngineOptions(TypedDict, total=False):
    """The options of an `Engine`, which explains them."""

    rows: int
    prefill_chunk: int | None
    cache_bytes: int | None
    cache_dtype: CacheDtype | None
    memory_of: Callable[[CausalLM], RowMemory] | None


def check_numbers(rows: int, prefill_chunk: int | None, cache_bytes: int | None) -> None:
    """Refuse numbers that make no sense.

    Raises:
        UsageError: if one is below 1, or no whole number.
    """
    numbers = {"prefill_chunk": prefill_chunk, "cache_bytes": cache_bytes}
    given = {name: number for name, number in numbers.items() if number is not None}
    for name, number in {"rows": rows, **given}.items():
        if (whole_number(number) or 0) < 1:
            raise UsageError(name, f"is {shown(number)}", "give a whole number, 1 or more")
