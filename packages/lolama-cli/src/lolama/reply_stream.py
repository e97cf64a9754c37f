"""A reply, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from lolama_core import Generation, TokenStream


class ReplyStream:
    """Iterates over pieces of text as they come. Their sum is `Generation.text`.

    Dropping it, closing it or leaving its ``with`` block ends the generation.
    """

    def __init__(self, tokens: TokenStream, pieces: Iterator[str] | None = None) -> None:
        self._tokens, self._pieces = tokens, pieces if pieces is not None else tokens.text()

    @property
    def result(self) -> Generation | None:
        """The whole `Generation`, once the stream has ended by itself."""
        return self._tokens.result

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
