"""The ``tokenizers`` library's tokenizer of an untrusted ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import AddedTokenBlock
from lolama_core.text.native_guard import call_native

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
    dropout = getattr(native.model, "dropout", None)
    if dropout is not None and 0 < dropout < 1:
        raise ModelError(
            source,
            f"has a model with dropout {dropout:g}, so a text has other ids each time",
            "set dropout to null there: it is for training",
        )
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
            f"gives the id {token_id} to two tokens, {shown(one)} and {shown(other)}",
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
    source: str,
) -> None:
    """Add ``tokens`` to ``native`` with ids past the highest in use.

    The library gives a new token the number of tokens as its id. Where ids have holes, that is a word's own.
    Then the first of ``tokens`` becomes a word of the model with an id past all others, and the library
    counts on from there. Only the model is read anew: one word more would move the file's added tokens,
    which are counted too.

    Args:
        native: The result of `read_native`.
        vocabulary: The ids of all its tokens.
        tokens: Added tokens that the vocabulary does not have.
        tokenizer_json, source: What ``native`` was read from.
    """
    from tokenizers import Tokenizer

    highest = max(vocabulary.values())
    if tokens and highest >= len(vocabulary):
        model = json.loads(tokenizer_json)["model"]
        if isinstance(model["vocab"], dict):  # a list has no holes
            model["vocab"][tokens[0].content] = highest + 1
            alone = json.dumps({"version": "1.0", "model": model})
            native.model = call_native(lambda: Tokenizer.from_str(alone), subject=source).model
            native.add_tokens([tokens[0]])  # alone: within one call the library does not count on
    native.add_tokens(list(tokens))
