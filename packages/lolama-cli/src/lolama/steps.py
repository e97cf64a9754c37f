"""How far something is that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

Steps: TypeAlias = Callable[[int, int], None]
"""Is told how many steps are done, and how many there are. 0 begins anew."""

Item = TypeVar("Item")


def counted(items: Iterable[Item], count: int, steps: Steps | None) -> Iterator[Item]:
    """``items``, of which there are ``count``; ``steps`` is told of each that is done with."""
    if steps is None:
        yield from items
        return
    steps(0, count)
    for done, item in enumerate(items, start=1):
        yield item
        steps(done, count)
