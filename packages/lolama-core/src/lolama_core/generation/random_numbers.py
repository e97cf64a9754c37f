"""Random numbers that are drawn again: after an error or Ctrl-C, or once a guess was made with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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


@contextmanager
def drawn_in_advance(generator: torch.Generator | None) -> Iterator[None]:
    """Whoever draws after this draws the numbers that were drawn here."""
    before = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        if generator is not None and before is not None:
            generator.set_state(before)
