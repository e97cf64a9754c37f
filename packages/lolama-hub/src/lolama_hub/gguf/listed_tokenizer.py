"""A tokenizer whose tokens a GGUF file lists: what tokenizer.json says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.gguf.byte_level import byte_level_parts, find_pre_tokenizer
from lolama_hub.gguf.kept_tokenizer import Described
from lolama_hub.gguf.pieces import gemma4_parts, sentencepiece_parts
from lolama_hub.gguf.special_ids import read_special_ids
from lolama_hub.gguf.token_list import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    TokenList,
    read_tokens,
)

_PARTS: Mapping[str, Callable[[Fields, TokenList], dict[str, JSON]]] = {
    "gemma4": gemma4_parts,
    "gpt2": byte_level_parts,
    "llama": sentencepiece_parts,
}
_REFUSED = {
    "bert": "WordPiece, as BERT has it, is not supported",
    "none": "the file has no tokenizer",
    "no_vocab": "the file has no tokenizer",
    "rwkv": "the tokenizer of RWKV is not supported",
    "t5": "in SentencePiece's Unigram, typed control tokens would not stay text",
}
# What llama.cpp takes for BOS and EOS of SentencePiece where a file does not say.
_DEFAULTS = {"ggml.bos_token_id": 1, "ggml.eos_token_id": 2}
# Phi-3's other control tokens take the spaces behind them with them, which no key of the file says.
PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")


def describe_listed(fields: Fields, architecture: object) -> Described:
    """What is to be known of it.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.
        architecture: The model's, as the file calls it.

    Raises:
        ModelError: naming the key, for a tokenizer that makes no sense or is not supported.
    """
    kind = fields.get("ggml.model")
    if not isinstance(kind, str) or kind not in _PARTS:
        known = _REFUSED.get(kind, "") if isinstance(kind, str) else ""
        reason = f"has the tokenizer.ggml.model {shown(kind)}" + (f": {known}" if known else "")
        remedy = "use the model's safetensors version, or another model"
        raise ModelError(str(fields.path), reason, remedy)
    tokens = read_tokens(fields)
    adds_bos = True
    if kind == "gpt2":
        adds_bos = find_pre_tokenizer(fields).adds_bos
    else:
        tokens = _with_spaces(tokens)
    added = {
        number
        for number, found in enumerate(tokens.kinds)
        if found in (CONTROL, UNKNOWN, USER_DEFINED)
    }
    block, eos_ids = read_special_ids(
        fields,
        dict(enumerate(tokens.texts)),
        added,
        adds_bos=adds_bos,
        defaults=_DEFAULTS if kind == "llama" else {},
    )
    controls = {tokens.ids[block["bos_token"]]} if block["bos_token"] is not None else set()
    controls |= {number for number in added if tokens.kinds[number] != USER_DEFINED} | {*eos_ids}
    takes_spaces = kind == "llama" and architecture == "phi3"
    entries: list[JSON] = [
        {
            "id": number,
            "content": tokens.texts[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": takes_spaces and tokens.texts[number] not in PHI3_PLAIN,
            "normalized": False,
            "special": number in controls,
        }
        for number in sorted(added | controls)
    ]

    kinds = [
        CONTROL if one == NORMAL and number in controls else one
        for number, one in enumerate(tokens.kinds)
    ]
    checked = replace(tokens, kinds=kinds)

    def make() -> str:
        parts = _PARTS[kind](fields, checked)
        values: JSON = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": entries,
            "normalizer": parts["normalizer"],
            "pre_tokenizer": parts["pre_tokenizer"],
            "post_processor": None,
            "decoder": parts["decoder"],
            "model": parts["model"],
        }
        return json.dumps(values, ensure_ascii=False)

    return Described(block, len(tokens.texts), eos_ids, make)


def _with_spaces(tokens: TokenList) -> TokenList:
    """The same, with spaces in pieces that are found in a text before it is normalized.

    llama.cpp's converter writes them so today; before, it wrote ``▁``.
    """
    texts, ids = list(tokens.texts), dict(tokens.ids)
    for number, kind in enumerate(tokens.kinds):
        spaced = texts[number].replace("▁", " ")
        if kind == USER_DEFINED and spaced not in ids:
            del ids[texts[number]]
            texts[number] = spaced
            ids[spaced] = number
    return replace(tokens, texts=texts, ids=ids)
