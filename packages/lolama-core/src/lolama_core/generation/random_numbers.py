"""Random numbers that are drawn again: after an error or Ctrl-C, or once a guess was made with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import starmap
from typing import TypeVar

import torch

T = TypeVar("T")


class drawn_again:
    """Whoever tries again what is broken off in the ``with`` block draws the same numbers again."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        self._before = None if generator is None else generator.get_state()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and self._generator is not None and self._before is not None:
            self._generator.set_state(self._before)


def drawn_in_advance(generators: Iterable[torch.Generator | None], work: Callable[[], T]) -> T:
    """Call ``work``. Whoever draws after it draws the numbers that were drawn there.

    Returns:
        What ``work`` returns.
    """
    before = [(each, each.get_state()) for each in generators if each is not None]
    restore = starmap(torch.Generator.set_state, before)
    try:
        return work()
    finally:
        # One call restores all of them. Ctrl-C is raised behind it.
        deque(restore, maxlen=0)
