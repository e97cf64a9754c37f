"""What one prompt's generation gives out, as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Literal, Self, cast

from lolama_core.generation.request import Generation, Request, Text
from lolama_core.protocols.errors import UsageError


class TokenStream(Generic[Text]):
    """Iterates over token ids as they are generated; `text` iterates over pieces of text instead.

    Dropping it, closing it or leaving its ``with`` block ends the generation and frees its cache.

    Attributes:
        result: The whole `Generation`, once the stream has ended by itself.
    """

    def __init__(self, request: Request, steps: Iterator[None]) -> None:
        self._request, self._steps = request, steps
        self.result: Generation[Text] | None = None

    def _outputs(self, kind: Literal["released", "pieces"]) -> Iterator[Any]:
        given = 0
        try:
            while True:
                ended = next(self._steps, self) is self
                ready = getattr(self._request, kind)
                yield from ready[given:]
                given = len(ready)
                if ended:
                    if self._request.finish_reason is not None:  # else it was closed, or failed
                        self.result = cast("Generation[Text]", self._request.result())
                    return
        finally:
            self.close()

    def __iter__(self) -> Iterator[int]:
        return self._outputs("released")

    def text(self) -> Iterator[str]:
        """Pieces of text, as soon as each is certain. Their sum is `Generation.text`."""
        if self._request.text_stream is None:
            raise UsageError(
                "tokenizer", "is needed to stream text", "use TextGenerator(model, tokenizer)"
            )
        return self._outputs("pieces")

    @property
    def cached_tokens(self) -> int:
        """`Generation.cached_tokens`, as soon as there is a token; also of a stream that was broken off."""
        return self._request.cached_tokens

    @property
    def new_tokens(self) -> int:
        """How many ids were given out so far."""
        return len(self._request.released)

    def close(self) -> None:
        """End the generation."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
