"""Whether two tokenizers have the same tokens."""

from __future__ import annotations

from lolama_core.protocols.checks import shown
from lolama_core.protocols.types import AddedTokenBlock
from lolama_core.text.native_tokenizer import NativeTokenizer, read_native
from lolama_core.text.tokenizer import Tokenizer


def vocabulary_difference(one: Tokenizer, other: Tokenizer) -> str | None:
    """The first difference between the tokens of two tokenizers, in words; None if they are the same.

    They are the same if each token has the same id in both, and both leave out the same ids when they decode.
    How a text is split, what begins or ends it, and chat templates may differ.
    """
    if one.tokenizer_json == other.tokenizer_json and _added(one) == _added(other):
        return None
    (_, ids, specials, _), (_, other_ids, other_specials, _) = map(_read, (one, other))
    texts, other_texts = ({i: text for text, i in of.items()} for of in (ids, other_ids))
    for number in sorted(texts.keys() | other_texts.keys()):
        if texts.get(number) != other_texts.get(number):
            return f"the id {number} is {_named(texts, number)} here and {_named(other_texts, number)} there"
    for number in sorted(specials ^ other_specials):
        where = "here" if number in specials else "there"
        return f"the id {number}, {shown(texts[number])}, is a control token {where} alone"
    return None


def _added(tokenizer: Tokenizer) -> list[AddedTokenBlock]:
    return tokenizer.block.get("added_tokens", [])


def _read(tokenizer: Tokenizer) -> NativeTokenizer:
    return read_native(tokenizer.tokenizer_json, _added(tokenizer), "tokenizer.json")


def _named(texts: dict[int, str], number: int) -> str:
    return shown(texts[number]) if number in texts else "no token"
