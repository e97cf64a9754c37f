"""What passes cost lately: how much of a prompt may run beside rows that decode."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

MOST_POSITIONS = 512
"""Positions of prompts that run in one pass at most: the activations of more need not fit."""

LEAST_POSITIONS = 8
"""Positions of prompts that run at first, and at least where they have a pass of their own: fewer take about
the same time there."""

_MEASURE_AGAIN = 32
"""After 32 passes with a chunk one runs without, to measure a step: it costs more as texts grow."""

_NEWEST = 0.5
"""The weight of a new measurement."""


class PassCosts:
    """Measures passes, and says how many positions of prompts cost as much as a decoding step.

    Args:
        clock: Seconds.

    Attributes:
        positions: Positions of the last chunk beside rows that decode.
        position: Seconds that a position of a prompt adds to a pass; None as long as nobody knows.
        steps: Number of rows → seconds of a decoding step.
        drafting: Seconds that guessing for the next pass took; None if they are no measure.
        reading: Seconds that a draft model takes to read a position; None as long as nobody knows.
        planned: What the last chunk beside rows that decode was to cost, in decoding steps of theirs.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.clock = clock
        self.position: float | None = None
        self.steps: dict[int, float] = {}
        self.planned = 0.0
        self.drafting: float | None = 0.0
        self.reading: float | None = None
        self._draft_seconds: float | None = None
        self.positions = self._read = LEAST_POSITIONS
        self._since = 0

    def chunk(self, rows: int, together: bool = False) -> int:
        """Positions of prompts that may run beside ``rows`` that decode, maybe in one pass ``together``.

        They cost no more than a decoding step, but for the least. It is 0 to measure such a step first.
        """
        if not rows:
            return MOST_POSITIONS
        if not self.knows_step(rows):
            return 0
        least = 1 if together else LEAST_POSITIONS
        return _affordable(self.position, self.positions, self.steps[rows], least)

    def draft_chunk(self, rows: int) -> int:
        """Positions that a draft model may read in a step, to catch up with ``rows`` that decode.

        They cost no more than a decoding step, but for the least; such a step was measured.
        """
        return _affordable(self.reading, self._read, self.steps[rows], LEAST_POSITIONS)

    def knows_step(self, rows: int) -> bool:
        """Whether a decoding step was measured lately. If not, nothing else is to run beside the next."""
        return rows in self.steps and self._since < _MEASURE_AGAIN

    def draft_token(self, rows: int) -> float | None:
        """What a token that one of ``rows`` tries ahead costs, as a part of that row's share of a step."""
        if self._draft_seconds is None:
            return None
        return self._draft_seconds * rows / self.steps[rows]

    def note_drafting(self, seconds: float, read: int) -> None:
        """Learn from guesses.

        Args:
            seconds: What they took.
            read: Positions that a draft model has read for them, to catch up.
        """
        self.drafting = None if read else seconds
        if read:
            self._read = read
            self.reading = _mean(self.reading, seconds / read)

    def note(self, rows: int, positions: int, drafted: int, seconds: float) -> None:
        """Learn from a step.

        Args:
            rows: How many have decoded.
            positions: Those of prompts that have run.
            drafted: Tokens that were tried ahead.
            seconds: What it took.
        """
        if not positions + drafted:
            if rows:
                # A step that something else held up is forgotten with the next one.
                self.steps[rows] = min(seconds, _mean(self.steps.get(rows), seconds))
                self._since = 0
        elif drafted:
            self._since += 1
            if self.drafting is not None:
                more = max(0.0, seconds - self.steps.get(rows, seconds)) + self.drafting
                each = more / drafted
                self._draft_seconds = min(each, _mean(self._draft_seconds, each))
        elif rows in self.steps:
            self._since += 1
            self.positions = positions
            self.planned = positions * (self.position or 0.0) / self.steps[rows]
            self.position = _mean(self.position, max(0.0, seconds - self.steps[rows]) / positions)
        elif self.position is None:
            self.position = seconds / positions


def _affordable(position: float | None, before: int, step: float, least: int) -> int:
    """How many positions cost a step, if one costs ``position``, and there were ``before`` the last time."""
    if position is None:
        return LEAST_POSITIONS
    # No more than twice as many as before, since what is cheap for few need not be for many.
    most = min(2 * before, MOST_POSITIONS)
    if position * most > step:
        most = int(step / position)
    return max(most, least)


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + _NEWEST * (new - before)
