"""SentencePiece's BPE, which a GGUF file calls ``llama``, and Gemma 4's: what tokenizer.json says of them.

Text is cut into pieces, in which ``▁`` stands for a space, and what no piece fits is spelled in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.gguf.merges import read_merges
from lolama_hub.gguf.token_list import BYTE, NORMAL, UNKNOWN, TokenList, refused

_SPACE = "▁"
# A piece of n characters may be put together in n - 1 ways.
_LONGEST_PIECE = 1000


def sentencepiece_parts(fields: Fields, tokens: TokenList) -> dict[str, JSON]:
    """The parts of a tokenizer.json for the model ``llama``.

    Merges come in the order in which SentencePiece and llama.cpp make them: best score of the merged piece
    first. Where scores are equal, the lower id comes first, as pieces are listed in the order in which they
    were learned. So a file whose scores were lost, and are all equal, has the merges of the original.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.
        tokens: Its tokens.

    Raises:
        ModelError: naming the key.
    """
    for name in ("ggml.token_type", "ggml.scores"):
        if fields.get(name) is None:
            raise fields.refuse(name, "a list with an entry for each token")
    prefix = fields.get("ggml.add_space_prefix") is None or fields.boolean("ggml.add_space_prefix")
    merges: list[JSON] = [list(pair) for pair in _merges(fields, tokens)]
    steps: list[JSON] = [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
    steps.append(_replace(" ", _SPACE))
    decoder = _decoder()
    if prefix:
        decoder.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": _model(fields, tokens, merges),
    }


def gemma4_parts(fields: Fields, tokens: TokenList) -> dict[str, JSON]:
    """The parts of a tokenizer.json for the model ``gemma4``, whose merges are listed.

    Raises:
        ModelError: naming the key.
    """
    return {
        "normalizer": _replace(" ", _SPACE),
        # As llama.cpp does. The published one cuts at spaces, of which there are none by then.
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[^\n]+|[\n]+"},
            "behavior": "Isolated",
            "invert": False,
        },
        "decoder": {"type": "Sequence", "decoders": _decoder()},
        "model": _model(fields, tokens, read_merges(fields, tokens)),
    }


def _model(fields: Fields, tokens: TokenList, merges: list[JSON]) -> JSON:
    unknown = _unknown(fields, tokens)
    has_bytes = BYTE in tokens.kinds
    if unknown is None and not has_bytes:
        reason = "has neither a token for what is unknown nor tokens of bytes"
        raise refused(fields, "ggml.token_type", reason)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": has_bytes,
        "ignore_merges": False,
        "vocab": dict(tokens.ids),
        "merges": merges,
    }


def _unknown(fields: Fields, tokens: TokenList) -> str | None:
    number = fields.get("ggml.unknown_token_id")
    if number is None:
        number = tokens.kinds.index(UNKNOWN) if UNKNOWN in tokens.kinds else None
    else:
        number = fields.integer("ggml.unknown_token_id", low=0, high=len(tokens.texts) - 1)
    return None if number is None else tokens.texts[number]


def _merges(fields: Fields, tokens: TokenList) -> Iterator[tuple[str, str]]:
    """The merges, the first of them first.

    Only text may be merged out of text, so control tokens and bytes are left out: with them, a typed ``</s>``
    could become the control token.
    """
    text = {tokens.texts[n]: n for n, kind in enumerate(tokens.kinds) if kind == NORMAL}
    longest = max(text, key=len, default="")
    if len(longest) > _LONGEST_PIECE:
        reason = f"has the piece {shown(longest)}, of more than {_LONGEST_PIECE} characters"
        raise refused(fields, "ggml.tokens", reason)
    for whole in sorted(text, key=lambda piece: (-tokens.scores[text[piece]], text[piece])):
        splits = ((whole[:n], whole[n:]) for n in range(1, len(whole)))
        yield from sorted(
            (pair for pair in splits if pair[0] in text and pair[1] in text),
            key=lambda pair: (text[pair[0]], text[pair[1]]),
        )


def _decoder() -> list[JSON]:
    return [_replace(_SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]


def _replace(text: str, by: str) -> JSON:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}
