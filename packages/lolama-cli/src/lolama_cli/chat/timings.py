"""What replies take: of one, and of a session's together."""

from __future__ import annotations

from dataclasses import dataclass

from lolama_cli.draft import tried_ahead


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What a reply took.

    Attributes:
        prompt: Positions of the prompt, pictures included.
        cached: Those that were run in an earlier turn.
        new: Tokens of the reply.
        drafted: Tokens that were tried ahead of their turn.
        accepted: Those of them that were right.
        first: Seconds to the first text; None if there was none.
        seconds: Seconds in all.
    """

    prompt: int
    cached: int
    new: int
    drafted: int
    accepted: int
    first: float | None
    seconds: float

    @property
    def prefilled(self) -> int:
        """Positions of the prompt that were run."""
        return self.prompt - self.cached

    def __str__(self) -> str:
        line = f"{self.prompt:,} prompt tokens, {self.prefilled:,} of them new to the model, {self.new:,} new"
        if self.first is not None:
            line += f"; first text after {self.first:.2f} s"
            if self.new > 1:
                line += (
                    f", then {(self.new - 1) / max(self.seconds - self.first, 1e-9):.1f} tokens/s"
                )
        return f"{line}; {tried_ahead(self.drafted, self.accepted)}"


@dataclass
class Totals:
    """The number of a session's replies, and the sums of their `Timings`."""

    replies: int = 0
    prompt: int = 0
    cached: int = 0
    new: int = 0
    seconds: float = 0.0

    def add(self, timings: Timings) -> None:
        """Count one more reply."""
        self.replies += 1
        self.prompt += timings.prompt
        self.cached += timings.cached
        self.new += timings.new
        self.seconds += timings.seconds
