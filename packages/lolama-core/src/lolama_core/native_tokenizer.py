"""The ``tokenizers`` library's tokenizer of an untrusted ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lolama_core.native_guard import call_native
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import AddedTokenBlock
from lolama_core.untrusted_files import quote

if TYPE_CHECKING:
    import tokenizers

# No published token comes near it; an answer of a few hundred such tokens still fits into memory.
_LONGEST_TOKEN = 1 << 16


class NativeTokenizer(NamedTuple):
    """A tokenizer as it was read.

    ``ids`` are those of all its tokens, ``specials`` those that decoding leaves out. ``words`` are tokens
    that are words of its own and became control tokens only by what was added.
    """

    native: tokenizers.Tokenizer
    ids: dict[str, int]
    specials: frozenset[int]
    words: frozenset[str]


def read_native(
    tokenizer_json: str, added_tokens: Sequence[AddedTokenBlock], source: str
) -> NativeTokenizer:
    """The tokenizer, without padding or truncation, and its vocabulary.

    Args:
        tokenizer_json: The text of the file.
        added_tokens: Tokens to add to those of the file, in order. One that is there gets these flags.
        source: The file's name, for messages.

    Raises:
        ModelError: if the file is damaged, or two tokens would have one id.
    """
    from tokenizers import AddedToken, Tokenizer

    native: tokenizers.Tokenizer = call_native(
        lambda: Tokenizer.from_str(tokenizer_json), subject=source
    )
    native.no_padding()
    native.no_truncation()
    specials = _specials(native)
    in_file = {token.content for token in native.get_added_tokens_decoder().values()}
    more = [AddedToken(**token) for token in added_tokens]
    if more:
        call_native(lambda: native.add_tokens(more), subject=source)
        # The library goes on leaving out a token that is no longer called special.
        specials |= _specials(native)
    vocabulary = native.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ModelError(source, "has an empty vocabulary", "fetch the file again")
    longest = max(vocabulary, key=len)
    if len(longest) > _LONGEST_TOKEN:
        raise ModelError(
            source,
            f"has a token of {len(longest)} characters, more than {_LONGEST_TOKEN}",
            "use another tokenizer.json",
        )
    if len(set(vocabulary.values())) < len(vocabulary):
        first: dict[int, str] = {}
        one, other, token_id = next(
            (first[number], token, number)
            for token, number in vocabulary.items()
            if first.setdefault(number, token) != token
        )
        raise ModelError(
            source,
            f"gives the id {token_id} to two tokens, {quote(one)} and {quote(other)}",
            "use another tokenizer.json",
        )
    words = {token.content for token in more if native.model.token_to_id(token.content) is not None}
    return NativeTokenizer(native, vocabulary, specials, frozenset(words - in_file))


def _specials(native: tokenizers.Tokenizer) -> frozenset[int]:
    added = native.get_added_tokens_decoder()
    return frozenset(token_id for token_id, token in added.items() if token.special)


def add_past_vocabulary(
    native: tokenizers.Tokenizer,
    vocabulary: Mapping[str, int],
    tokens: Sequence[tokenizers.AddedToken],
    tokenizer_json: str,
    added_tokens: Sequence[AddedTokenBlock],
    source: str,
) -> tokenizers.Tokenizer:
    """``native`` with ``tokens``, whose ids are all past the highest in use.

    The library gives a new token the number of tokens as its id. Where ids have holes, that is a word's own.
    Then the first of ``tokens`` is made a word of the file with an id past all others, and the library counts
    on from there.

    Args:
        native: From `read_native`; it may be changed.
        vocabulary: The ids of all its tokens.
        tokens: Added tokens that the vocabulary does not have.
        tokenizer_json, added_tokens, source: What ``native`` was read from.
    """
    if not tokens:
        return native
    highest = max(vocabulary.values())
    if highest >= len(vocabulary):
        values = json.loads(tokenizer_json)
        words = values["model"]["vocab"]
        if isinstance(words, dict):  # a list has no holes
            words[tokens[0].content] = highest + 1
            native = read_native(json.dumps(values), added_tokens, source).native
            native.add_tokens([tokens[0]])  # alone: within one call the library does not count on
    native.add_tokens(list(tokens))
    return native


def byte_ids(
    native: tokenizers.Tokenizer, vocabulary: Mapping[str, int], source: str
) -> frozenset[int]:
    """The ids that are single bytes, such as ``<0xE2>``.

    Raises:
        ModelError: for a decoder with a pattern, whose time could not be bounded.
    """
    decoder = json.loads(native.decoder.__getstate__()) if native.decoder else None
    text = json.dumps(decoder)
    if '"Regex"' in text:
        raise ModelError(source, "has a decoder with a pattern", "use another tokenizer.json")
    names = [f"<0x{byte:02X}>" for byte in range(256)] if '"type": "ByteFallback"' in text else []
    return frozenset(vocabulary[name] for name in names if name in vocabulary)
