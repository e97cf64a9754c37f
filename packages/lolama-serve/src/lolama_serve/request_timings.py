"""When a request reached each stage of its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timings:
    """When a request reached each stage, in seconds of `time.monotonic`; 0 for a stage that is to come.

    Attributes:
        submitted: When it came.
        begun: When it joined the engine.
        first: When its first token was chosen.
        last: When its last token so far was chosen.
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
        """Seconds from joining the engine to the first token: the prompt's run, and its wait for that."""
        return max((self.first or self.last or self.begun) - self.begun, 0.0)

    @property
    def decode_seconds(self) -> float:
        """Seconds that all tokens but the first took."""
        return max(self.last - self.first, 0.0)
