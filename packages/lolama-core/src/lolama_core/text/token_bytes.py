"""The bytes that each token of a tokenizer stands for within a text, as grammars read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lolama_core.protocols.errors import UsageError
from lolama_core.text.tokenizer import Tokenizer


def _byte_characters() -> Mapping[str, int]:
    """The characters that byte-level tokenizers write bytes as: printable ones as themselves (GPT-2)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    names = {chr(byte): byte for byte in shown}
    return names | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


_BYTES = MappingProxyType(_byte_characters())


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of a vocabulary's tokens.

    Attributes:
        texts: Those of each id; none of an id that no token has.
        controls: The ids of control tokens. Their bytes are what they are called, and no part of a text.
    """

    texts: tuple[bytes, ...]
    controls: frozenset[int]


def token_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """What each token adds to a text that it does not begin: as `Tokenizer.decode` has it, in bytes.

    Raises:
        UsageError: if what a token stands for depends on the tokens beside it.
    """
    decoder, vocabulary = tokenizer.decoder, tokenizer.decoder.vocabulary
    texts = [b""] * tokenizer.vocab_size
    if "ByteLevel" in decoder.kinds:
        if decoder.kinds != ["ByteLevel"]:
            raise _unknown("has a decoder with more steps than ByteLevel")
        for name, number in vocabulary.items():
            known = [_BYTES.get(character) for character in name]
            whole = [byte for byte in known if byte is not None]
            # As the library does: a name with any other character stands for itself.
            texts[number] = bytes(whole) if len(whole) == len(known) else name.encode()
    else:
        before = _begin(tokenizer)
        start = len(tokenizer.decode([before], skip_special_tokens=False))
        for name, number in vocabulary.items():
            if number in decoder.independent:
                text = tokenizer.decode([before, number], skip_special_tokens=False)
                texts[number] = text[start:].encode()
            else:  # ``<0x41>``
                texts[number] = bytes.fromhex(name[3:5])
    return TokenBytes(tuple(texts), tokenizer.controls)


def _begin(tokenizer: Tokenizer) -> int:
    """A token that begins a text, of which no step takes anything away."""
    for number in sorted(tokenizer.decoder.independent):
        once = tokenizer.decode([number], skip_special_tokens=False)
        if once and not tokenizer.is_special(number):
            twice = tokenizer.decode([number, number], skip_special_tokens=False)
            if twice == 2 * once:
                return number
    raise _unknown("has a decoder that reads on from one token into the next")


def _unknown(reason: str) -> UsageError:
    return UsageError("tokenizer", reason, "generate without a grammar")
