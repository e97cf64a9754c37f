"""What an engine may be made with, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from lolama_core.generation.prefix_cache import PrefixCache
from lolama_core.generation.speculation import Drafting, Speculation
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.int8_cache import CacheDtype, check_cache_dtype
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.text.plain_numbers import whole_number


class EngineOptions(TypedDict, total=False):
    """The options of an `Engine`, which explains them."""

    rows: int
    prefill_chunk: int | None
    cache_bytes: int | None
    cache_dtype: CacheDtype | None
    memory_of: Callable[[CausalLM], RowMemory] | None
    draft: Drafting | Speculation


class GeneratorOptions(TypedDict, total=False):
    """The options of a `TextGenerator`, which explains them."""

    prefix_cache: PrefixCache | None
    cache_dtype: CacheDtype | None
    draft: Drafting


def check_options(
    model: CausalLM,
    rows: int,
    prefill_chunk: int | None,
    cache_bytes: int | None,
    cache_dtype: CacheDtype | None,
) -> None:
    """Refuse options that make no sense.

    Raises:
        UsageError: if a number is below 1, or no whole number; or if ``model`` has no such ``cache_dtype``.
    """
    numbers = {"prefill_chunk": prefill_chunk, "cache_bytes": cache_bytes}
    given = {name: number for name, number in numbers.items() if number is not None}
    for name, number in {"rows": rows, **given}.items():
        if (whole_number(number) or 0) < 1:
            raise UsageError(name, f"is {shown(number)}", "give a whole number, 1 or more")
    check_cache_dtype(cache_dtype, model)


def chosen_cache_dtype(
    cache_dtype: CacheDtype | None, prefix_cache: PrefixCache | None, model: CausalLM
) -> CacheDtype | None:
    """What keys and values are stored in: that of a ``prefix_cache`` is its own.

    Raises:
        UsageError: if the model or ``prefix_cache`` has another dtype; if that is no `PrefixCache`.
    """
    if prefix_cache is not None:
        if not isinstance(prefix_cache, PrefixCache):
            reason = f"{shown(prefix_cache)} is no PrefixCache"
            raise UsageError("prefix_cache", reason, "give a PrefixCache(max_bytes=...)")
        if cache_dtype not in (None, prefix_cache.cache_dtype):
            reason = f"is {cache_dtype!r}, and the prefix cache has another one"
            raise UsageError("cache_dtype", reason, "give it to PrefixCache instead")
        cache_dtype = prefix_cache.cache_dtype
    check_cache_dtype(cache_dtype, model)
    return cache_dtype
