"""Tiny tokenizers for tests: the text of a ``tokenizer.json``, of bytes or of pieces as in published models.

They are BPE with the vocabulary and merges that a test names, or that are learned from a few texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

Merges = Sequence[tuple[str, str]]

_PIECES = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def byte_characters() -> list[str]:
    """The printable characters that stand for bytes in byte-level tokenizers, byte 0 first."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def byte_level(
    vocabulary: Mapping[str, int],
    merges: Merges = (),
    *,
    specials: Sequence[str] = (),
    added: Sequence[str] = (),
    bos: str | None = None,
    words: bool = True,
) -> str:
    """Like GPT-2 and Llama 3: tokens are strings of bytes, cut anywhere, also within a character.

    Args:
        vocabulary: Token → id; tokens are written with `byte_characters`.
        merges: Pairs of tokens that become one, the first of them first.
        specials: Control tokens; one that the vocabulary lacks gets the next id.
        added: Tokens that are found before the text is cut, and belong to it.
        bos: The special token that comes before each text.
        words: Whether a text is cut into words first.
    """
    native = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    native.decoder = decoders.ByteLevel()
    return _finished(native, specials, added, bos)


def with_pieces(
    vocabulary: Mapping[str, int],
    merges: Merges = (),
    *,
    specials: Sequence[str] = (),
    bos: str | None = None,
    byte_fallback: bool = False,
) -> str:
    """Like Llama 2: pieces with ▁ for a space, and ``<unk>`` where no piece fits.

    Args:
        vocabulary: Piece → id, with ``<unk>``.
        merges: Pairs of pieces that become one, the first of them first.
        specials: Control tokens; one that the vocabulary lacks gets the next id.
        bos: The special token that comes before each text.
        byte_fallback: Whether what no piece fits is spelled in bytes, ``<0x00>`` to ``<0xFF>``, which the
            vocabulary then has.
    """
    model = models.BPE(
        vocab=dict(vocabulary),
        merges=list(merges),
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )
    native = Tokenizer(model)
    native.normalizer = _PIECES
    native.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _finished(native, specials, (), bos)


def learn_bytes(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and merges of ``size`` tokens for `byte_level`: every byte, and what is common."""
    native = Tokenizer(models.BPE())
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _learned(native, texts, size, sorted(byte_characters()))


def learn_pieces(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and merges of ``size`` tokens for `with_pieces`, without ``<unk>``."""
    native = Tokenizer(models.BPE())
    native.normalizer = _PIECES
    return _learned(native, texts, size, [])


def _learned(
    native: Tokenizer, texts: Sequence[str], size: int, alphabet: list[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    native.train_from_iterator(texts, trainer)
    model = json.loads(native.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _finished(
    native: Tokenizer, specials: Sequence[str], added: Sequence[str], bos: str | None
) -> str:
    native.add_special_tokens(list(specials))
    native.add_tokens([AddedToken(token, normalized=False) for token in added])
    if bos is not None:
        native.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, native.token_to_id(bos))]
        )
    text: str = native.to_str()
    return text
