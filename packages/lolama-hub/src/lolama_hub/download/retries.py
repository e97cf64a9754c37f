"""When to try again, how long to wait before, and when to stop."""

from __future__ import annotations

import logging
import time

from lolama_core.protocols.errors import LolamaError

ATTEMPTS = 5
"""Tries without progress before a failure is final."""

LONGEST_WAIT = 30.0
"""Seconds waited in all before a failure is final; a server may ask for hours."""

_FIRST_WAIT = 0.5
_log = logging.getLogger(__name__)


class TransientError(Exception):
    """A failure that another try may not meet.

    Args:
        error: What to raise when there is no other try.
        wait: Seconds that the server asked to wait, if it did.
    """

    def __init__(self, error: LolamaError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class Retries:
    """Counts the failures of one piece of work."""

    def __init__(self) -> None:
        self._failures = 0
        self._waited = 0.0

    def failed(self, problem: TransientError) -> None:
        """Wait as long as is proper before the next try.

        Raises:
            LolamaError: the problem's own, if there is to be none.
        """
        self._failures += 1
        wait = problem.wait
        if wait is None:
            wait = _FIRST_WAIT * 2 ** (self._failures - 1)
        if self._failures >= ATTEMPTS or self._waited + wait > LONGEST_WAIT:
            raise problem.error from problem
        _log.info("%s; trying again in %.1f s", problem, wait)
        time.sleep(wait)
        self._waited += wait

    def progressed(self) -> None:
        """Something was achieved, so failures count anew."""
        self._failures = 0
        self._waited = 0.0
