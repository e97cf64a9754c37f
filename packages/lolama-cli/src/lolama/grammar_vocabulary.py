"""A tokenizer as llguidance needs it: the bytes of each token, and texts in the model's own tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lolama_core import Tokenizer, token_bytes
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import LolamaError, UsageError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from lolama_core import protocols

_LONGEST = 1000
"""Characters of a forced text that are encoded as the model would. No more of them count for the next token,
and it is asked for at each."""

_BEFORE = ("\x02", "\n", "|", "a")
"""What may stand before a text, so that no step takes the text for the beginning of one."""


def vocabulary_of(
    tokenizer: protocols.Tokenizer, eos_ids: Iterable[int], vocab_size: int
) -> LLTokenizer:
    """The vocabulary of a model with ``vocab_size`` logits.

    Raises:
        UsageError: if no token ends a text, or the bytes of the tokens cannot be told.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    if not isinstance(tokenizer, Tokenizer):
        reason = f"{shown(tokenizer)} does not tell the bytes of its tokens"
        raise UsageError("tokenizer", reason, "give what load_tokenizer() returns")
    ends = sorted({end for end in eos_ids if 0 <= end < vocab_size})
    if not ends:
        reason = "has no token that ends a text, so a grammar's text could not end"
        raise UsageError("the model", reason, "generate without a grammar")
    words = _Words(tokenizer, ends, vocab_size)
    words.native = LLTokenizer(TokenizerWrapper(words), eos_token=ends)
    return words.native


class _Words:
    """What `LLTokenizer` asks of a tokenizer.

    Args:
        tokenizer: The model's.
        ends: Ids that end a text. Whatever they spell, a text does not have them.
        vocab_size: Ids from here on are left out; ids of no token have no bytes.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int], vocab_size: int) -> None:
        self.native: LLTokenizer | None = None
        self.eos_token_id = ends[0]
        known = token_bytes(tokenizer)
        self.tokens = [*known.texts[:vocab_size], *[b""] * (vocab_size - len(known.texts))]
        self.special_token_ids = sorted({*ends, *(i for i in known.controls if i < vocab_size)})
        for number in self.special_token_ids:
            self.tokens[number] = self.tokens[number] or f"<end {number}>".encode()
        # llguidance marks control tokens by this byte, which no text in UTF-8 has.
        self.tokens = [b"" if 0xFF in text else text for text in self.tokens]
        self._tokenizer = tokenizer
        self._before: list[tuple[str, list[int]]] = [("", [])]
        self._before += [(text, self._ids(text)) for text in _BEFORE]

    def __call__(self, text: str) -> list[int]:
        """A text as the model itself would go on with it, as far as that is known; it never raises."""
        if not isinstance(text, str):  # asked to find out what is understood
            raise TypeError("texts alone")
        head, rest = text[:_LONGEST], text[_LONGEST:]
        ids = self._encoded(head)
        if ids is None:
            return self._longest_tokens(text)
        return [*ids, *self._longest_tokens(rest)] if rest else ids

    def _encoded(self, text: str) -> list[int] | None:
        spelled = text.encode()
        for before, begin in self._before:
            ids = self._ids(before + text)
            tokens = ids[len(begin) :]
            if ids[: len(begin)] == begin and b"".join(map(self._bytes, tokens)) == spelled:
                return tokens
        return None

    def _ids(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode_ids(
                text, add_special_tokens=False, split_special_tokens=True
            )
        except LolamaError:
            return []

    def _bytes(self, number: int) -> bytes:
        return self.tokens[number] if number < len(self.tokens) else b"\xff"

    def _longest_tokens(self, text: str) -> list[int]:
        """A text in tokens, each the longest that fits, where the tokenizer cannot spell it."""
        return [] if self.native is None else self.native.greedy_tokenize(text)
