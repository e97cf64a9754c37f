"""What one prompt's generation gives out, as it comes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from functools import partial
from itertools import count, islice
from typing import Generic, Self, cast

from lolama_core.generation.request import Request
from lolama_core.generation.text_stream import TextStream
from lolama_core.protocols import Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.generation import Emission, Generation, Text
from lolama_core.protocols.locks import while_locked
from lolama_core.text.streamed_id import StreamedId


class TokenStream(Generic[Text]):
    """Iterates over token ids as they are generated; `text` iterates over pieces of text instead.

    The ids are integers that know their text (`StreamedId`): with every tokenizer, printing
    ``tokenizer.decode([token_id])`` for each prints the text. An id in which a stop text begins is not given
    out; only `text` has what stands before the stop text.

    An id whose text is incomplete comes once other ids complete it, or the text ends. A generator without a
    tokenizer gives every id at once; decoding an incomplete one then runs the generation on until its text is
    known.

    Every iterator begins with what came first. Dropping one, closing the stream or leaving its ``with`` block
    ends the generation and frees its cache.

    Attributes:
        result: The whole `Generation`, once the stream has ended by itself.
    """

    def __init__(self, request: Request, steps: Generator[Emission, None, None]) -> None:
        self._request, self._steps = request, steps
        self._emissions: list[Emission] = []
        # Ids may be decoded in another thread than the one that generates.
        self._turn = threading.RLock()
        self._texts: dict[Tokenizer, tuple[list[str | None], Iterator[str | None]]] = {}
        self.result: Generation[Text] | None = None

    def _replayed(self) -> Iterator[Emission]:
        """Every emission from the first one on; runs the next step once all were given."""
        for place in count():
            if not while_locked(self._turn, partial(self._runs_to, place)):
                return
            yield self._emissions[place]

    def _runs_to(self, place: int) -> bool:
        """Run the next step if an emission is the next one. Whether there is such an emission."""
        if place == len(self._emissions):
            self._emissions.extend(islice(self._steps, 1))
        return place < len(self._emissions)

    def emissions(self) -> Iterator[Emission]:
        """What each step gives out: ids, text and log-probabilities, with a reason at the last step."""
        try:
            yield from self._replayed()
            ended = self._request.finish_reason is not None  # else it was closed, or failed
            if ended and len(self._emissions) == len(self._request.tokens):
                self.result = cast("Generation[Text]", self._request.result())
        finally:
            self.close()

    def __iter__(self) -> Iterator[int]:
        ids = (token_id for emission in self.emissions() for token_id in emission.ids)
        if self._request.text_stream is not None:
            return ids
        return (
            StreamedId.of(token_id, partial(self._text_of, place))
            for place, token_id in enumerate(ids)
        )

    def text(self) -> Iterator[str]:
        """Pieces of text, as soon as each is certain. Their sum is `Generation.text`."""
        if self._request.text_stream is None:
            raise UsageError(
                "tokenizer", "is needed to stream text", "use TextGenerator(model, tokenizer)"
            )
        return (emission.text for emission in self.emissions() if emission.text)

    def _text_of(self, place: int, tokenizer: Tokenizer) -> str | None:
        """What the id at that place of all ids adds to the text, by whatever tokenizer decodes it."""
        return while_locked(self._turn, partial(self._spelled_at, place, tokenizer))

    def _spelled_at(self, place: int, tokenizer: Tokenizer) -> str | None:
        # What an error or Ctrl-C breaks off is not put back, and begins anew.
        texts, following = self._texts.pop(tokenizer, ([], self._spelled(tokenizer)))
        while len(texts) <= place:
            texts.append(next(following))
        self._texts[tokenizer] = texts, following
        return texts[place]

    def _spelled(self, tokenizer: Tokenizer) -> Iterator[str | None]:
        """What each id adds to the text."""
        stream = TextStream(tokenizer, self._request.prompt_ids)
        for emission in self._replayed():
            for token_id in emission.ids:
                for known in stream.take(token_id)[0]:
                    yield known.text_by(tokenizer)
        for known in stream.end()[0]:
            yield known.text_by(tokenizer)

    @property
    def cached_tokens(self) -> int:
        """`Generation.cached_tokens`, as soon as there is a token; also of a stream that was broken off."""
        return self._request.cached_tokens

    @property
    def drafted_tokens(self) -> int:
        """`Generation.drafted_tokens` so far."""
        return self._request.drafted_tokens

    @property
    def accepted_tokens(self) -> int:
        """`Generation.accepted_tokens` so far."""
        return self._request.accepted_tokens

    @property
    def new_tokens(self) -> int:
        """How many ids were given out so far."""
        return sum(len(emission.ids) for emission in self._emissions)

    def close(self) -> None:
        """End the generation."""
        self._steps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
