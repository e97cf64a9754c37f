"""Text → ids, by an untrusted tokenizer: bounded in time and memory, and safe with what users type."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.locks import while_locked
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.text.growth_limits import TextGrowth
from lolama_core.text.native_guard import call_native

if TYPE_CHECKING:
    import tokenizers

# A pattern in a tokenizer file may take exponential time. Honest ones do a megabyte in well under a second.
_SECONDS_PER_CALL = 2.0
_SECONDS_PER_MEGABYTE = 2.0
_NO_CHARACTER = "\U0010fffe"


class Encoder:
    """Encodes with a native tokenizer, which no one else may change any more.

    Args:
        native: The tokenizer.
        controls: Id → text of control tokens that a typed text must not lead to.
        source: The tokenizer's file, for messages.

    Raises:
        ModelError: for steps that make texts much longer.
    """

    def __init__(
        self, native: tokenizers.Tokenizer, controls: Mapping[int, str], source: str
    ) -> None:
        self._native, self._source = native, source
        # A token of one character is also a letter, and the unknown token stands for any character.
        unknown = _unknown_token(native)
        self._controls = {
            i: text for i, text in controls.items() if len(text) > 1 and text != unknown
        }
        self._growth = TextGrowth(native, source)
        self._may_explode = _may_explode(native)
        self._in_use = threading.Lock()

    def encode(self, text: str, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Text → ids; see `lolama_core.protocols.Tokenizer`.

        Raises:
            UsageError: for what is no text, or spells out a control token that cannot be read otherwise.
            ModelError: if the tokenizer fails at it, takes too long or makes it too long.
        """
        if not isinstance(text, str):
            raise UsageError("text", f"is {shown(text)}, which is no text", "give a str, or a list")
        if not is_unicode(text):
            raise UsageError(
                "text", "holds half of a surrogate pair, which is not Unicode", "give UTF-8 text"
            )

        def encode() -> list[int]:
            self._native.encode_special_tokens = split_special_tokens
            # The batch call, unlike the single one, lets other threads run meanwhile.
            [encoding] = self._native.encode_batch([text], add_special_tokens=add_special_tokens)
            ids: list[int] = encoding.ids
            return ids

        def run() -> list[int]:
            self._growth.check(text)
            # The switch is the tokenizer's, not the call's: no other thread may turn it meanwhile.
            return while_locked(self._in_use, encode)

        seconds = _SECONDS_PER_CALL + _SECONDS_PER_MEGABYTE * len(text) / 1e6
        ids = call_native(run, subject=self._source, seconds=seconds if self._may_explode else None)
        if split_special_tokens:
            self._refuse_spelled_out(text, ids)
        return ids

    def _refuse_spelled_out(self, text: str, ids: Sequence[int]) -> None:
        """Refuse a text if the model itself, not the added tokens, made a control token of what it spells.

        A Unigram vocabulary may do so.
        """
        for token_id in self._controls.keys() & set(ids):
            content = self._controls[token_id]
            if content in text:
                raise UsageError(
                    "text",
                    f"holds {shown(content)}, which {self._source} always turns into a control token",
                    "leave it out",
                )


def _may_explode(native: tokenizers.Tokenizer) -> bool:
    """Whether some text may take it exponential time, or a long word much time."""
    # As the library understood it: a file may spell "Regex" with escapes.
    return type(native.model).__name__ in ("Unigram", "WordPiece") or any(
        b'"Regex"' in part.__getstate__()
        for part in (native.normalizer, native.pre_tokenizer)
        if part is not None
    )


def _unknown_token(native: tokenizers.Tokenizer) -> str | None:
    """What stands for a character that no vocabulary has."""

    def find() -> str | None:
        return next((token.value for token in native.model.tokenize(_NO_CHARACTER)), None)

    try:
        return call_native(find, subject="")
    except ModelError:  # there is none
        return None
