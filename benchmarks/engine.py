"""What the harness asks of every engine: prompts to run, and steps to time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

# Positions of a cache beyond the prompt, the same for every engine that has to reserve them.
ROOM = 256


def token(i: int) -> int:
    """Some id, far from the control ids and below every vocabulary."""
    return 3 + i * 7 % 500


def prompt(tokens: int) -> list[int]:
    """The ids that everybody gets; a shorter prompt is the beginning of a longer one."""
    return [token(i) for i in range(tokens)]


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


class Engine(ABC):
    """A loaded model. Making one is what the harness calls loading.

    Args:
        path: The model, in this engine's layout.
        threads: How many the engine may use.
    """

    @abstractmethod
    def __init__(self, path: str, threads: int) -> None: ...

    @staticmethod
    @abstractmethod
    def import_library() -> None:
        """Import what the engine needs, so that loading is timed without it."""

    @abstractmethod
    def detail(self) -> str:
        """What cannot be seen from outside: kernels, instruction sets."""

    def reserve(self, tokens: int) -> None:
        """Before the clock starts: whatever a user does once for many prompts of such a length."""
        del tokens

    @abstractmethod
    def start(self, tokens: int) -> None:
        """Run a prompt from an empty cache, up to the choice of its first new token."""

    @abstractmethod
    def step_times(self, rows: int, context: int, steps: int) -> list[float]:
        """Seconds of each of ``steps`` steps of ``rows`` sequences, after ``context`` positions."""

    def forget(self) -> None:  # noqa: B027 - an engine may hold nothing
        """Free what the last job left, so that an engine that waits holds its weights and no more."""


class SteppedEngine(Engine):
    """An engine whose cache is open to the caller, so that it runs token by token."""

    @abstractmethod
    def fill(self, rows: int, context: int) -> None:
        """Make a cache of ``rows`` sequences with ``context`` positions each, by whatever means."""

    @abstractmethod
    def step(self) -> None:
        """One token more for each row, chosen greedily."""

    def step_times(self, rows: int, context: int, steps: int) -> list[float]:
        """See `Engine`. The first step after a change of shape sets things up, and is left out."""
        assert steps < ROOM
        self.fill(rows, context)
        self.step()
        return [timed(self.step) for _ in range(steps)]
