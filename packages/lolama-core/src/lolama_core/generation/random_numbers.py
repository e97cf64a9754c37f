"""Random numbers that an error or Ctrl-C does not use up."""

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
