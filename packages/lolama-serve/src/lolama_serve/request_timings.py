"""When a request was where on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timings:
    """When a request was where, in seconds of a clock that never goes back.

    Attributes:
        submitted: It came.
        begun: It joined the engine.
        first: Its first token was chosen.
        last: Its last token was chosen.
        prompt: Positions of its prompt.
        tokens: Tokens chosen so far.
    """

    submitted: float
    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0
    prompt: int = 0
    tokens: int = 0

    @property
    def prompt_seconds(self) -> float:
        """What the prompt took, with what it waited within the engine."""
        return max((self.first or self.last or self.begun) - self.begun, 0.0)

    @property
    def decode_seconds(self) -> float:
        """What all tokens but the first took."""
        return max(self.last - self.first, 0.0)
