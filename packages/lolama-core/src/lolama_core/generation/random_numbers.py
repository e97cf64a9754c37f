"""Random numbers that are drawn again: after an error or Ctrl-C, or once a guess was made with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawn_again(generator: torch.Generator | None) -> Iterator[None]:
    """Whoever tries again what is broken off here draws the same numbers again."""
    before = None if generator is None else generator.get_state()
    try:
        yield
    except BaseException:
        if generator is not None and before is not None:
            generator.set_state(before)
        raise


@contextmanager
def drawn_in_advance(generator: torch.Generator | None) -> Iterator[None]:
    """Whoever draws after this draws the numbers that were drawn here."""
    before = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        if generator is not None and before is not None:
            generator.set_state(before)
