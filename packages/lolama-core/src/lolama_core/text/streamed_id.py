"""Ids that a stream gives out: integers that know their text beside the ids before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeAlias

from lolama_core.protocols import Tokenizer

TextBy: TypeAlias = Callable[[Tokenizer], str | None]


class StreamedId(int):
    """A token id that knows which text it adds to the ids before it.

    What an id says depends on its neighbors: the first word of a text has no space before it, and a character
    may take several ids. `Tokenizer.decode` of one streamed id alone gives the text that the stream found. Of
    ids that make one character together the last has it, and the others have none.

    To everything else it is an integer: several ids decode as ids, and what is made of one (a tensor, a copy,
    JSON, a pickle, a sum) holds plain integers.
    """

    _text_by: TextBy | None = None

    @classmethod
    def of(cls, token_id: int, text_by: TextBy) -> Self:
        """An id whose text will be asked for."""
        self = cls(token_id)
        self._text_by = text_by
        return self

    @classmethod
    def known(cls, token_id: int, text: str, tokenizer: Tokenizer) -> Self:
        """An id whose text is known, by that tokenizer alone."""
        return cls.of(token_id, lambda asking: text if asking is tokenizer else None)

    def text_by(self, tokenizer: Tokenizer) -> str | None:
        """The text; None if it is not known by that tokenizer."""
        return None if self._text_by is None else self._text_by(tokenizer)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Copies and pickles are plain integers."""
        return int, (int(self),)


def known_text(ids: object, tokenizer: Tokenizer) -> str | None:
    """The text of one streamed id, alone or in a list, by this tokenizer; None for anything else."""
    if isinstance(ids, list | tuple) and len(ids) == 1:
        ids = ids[0]
    return ids.text_by(tokenizer) if isinstance(ids, StreamedId) else None
