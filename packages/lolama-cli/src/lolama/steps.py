"""How far something is that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

Steps: TypeAlias = Callable[[int, int], None]
"""Is told how many steps are done, and how many there are. 0 begins anew."""

Item = TypeVar("Item")


@runtime_checkable
class NamedSteps(Protocol):
    """`Steps` that tell somebody what is being done."""

    def __call__(self, done: int, count: int) -> None:
        """See `Steps`."""

    def named(self, text: str) -> Steps:
        """The same for a part of it that is to be called ``text``."""
        ...


def named(steps: Steps | None, text: str) -> Steps | None:
    """``steps`` for a part that is to be called ``text``, where they tell somebody."""
    return steps.named(text) if isinstance(steps, NamedSteps) else steps


def counted(items: Iterable[Item], count: int, steps: Steps | None) -> Iterator[Item]:
    """``items``, of which there are ``count``; ``steps`` is told of each that is done with."""
    if steps is None:
        yield from items
        return
    steps(0, count)
    for done, item in enumerate(items, start=1):
        yield item
        steps(done, count)
