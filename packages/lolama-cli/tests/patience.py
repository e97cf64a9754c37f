"""Waiting for what another process does. It ends after a minute only to keep a test from hanging."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 60.0
"""Seconds that anything may take: more than it ever takes, whatever else the machine does."""


class Patience:
    """A time limit that begins now."""

    def __init__(self, seconds: float = LIMIT) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until they are over; negative afterwards."""
        return self._end - time.monotonic()

    def check(self, told: object = "") -> None:
        """Fail if they are over, and show ``told``."""
        assert self.left() > 0, told


def until(holds: Callable[[], bool], told: object = "") -> None:
    """Wait until something holds."""
    patience = Patience()
    while not holds():
        patience.check(told)
        time.sleep(0.002)
