"""A reply, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from lolama.thinking import ThoughtSplitter
from lolama_core import Generation, TokenStream


class ReplyStream:
    """Iterates over pieces of text as they come. Their sum is `Generation.text`.

    What the model thinks before it replies is no piece: `thinking` has it.

    Dropping it, closing it or leaving its ``with`` block ends the generation.
    """

    def __init__(
        self,
        tokens: TokenStream,
        pieces: Iterator[str] | None = None,
        thoughts: ThoughtSplitter | None = None,
    ) -> None:
        self._tokens, self._pieces = tokens, pieces if pieces is not None else tokens.text()
        self._thoughts = thoughts

    @property
    def result(self) -> Generation | None:
        """The whole `Generation`, once the stream has ended by itself."""
        result = self._tokens.result
        return result if result is None or self._thoughts is None else self._thoughts.apart(result)

    @property
    def thinking(self) -> str | None:
        """What the model has thought so far; None if it has not."""
        return None if self._thoughts is None else self._thoughts.thinking

    def close(self) -> None:
        """End the generation."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._tokens.close()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
