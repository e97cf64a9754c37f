"""A tokenizer.json → what a GGUF file lists of it: what `listed_tokenizer` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lolama_core.protocols.checkpoint import CheckpointIO, GGUFValue
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.vocabulary import parse_vocabulary
from lolama_hub.gguf.listed_tokenizer import describe_listed
from lolama_hub.gguf.pre_tokenizers import GPT2, PRE_TOKENIZERS, PreTokenizer
from lolama_hub.gguf.special_ids import BOS, END_TEXTS, ENDS, NAMED
from lolama_hub.gguf.token_list import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
INSTEAD = "use the model in lolama's own format"
"""What to do with a model that GGUF has no place for."""


@dataclass(frozen=True)
class _Tokens:
    """The ids of a model: text and kind of each."""

    texts: list[str]
    kinds: list[int]
    ids: Mapping[str, int]


def tokenizer_metadata(
    files: ModelFiles, vocab_size: int, io: CheckpointIO
) -> tuple[dict[str, GGUFValue], list[str]]:
    """What a file says of the tokenizer, and what it has no place for.

    Args:
        files: The model.
        vocab_size: Rows of its embedding. llama.cpp wants a token for each.
        io: Reader of untrusted files.

    Raises:
        ModelError: for a tokenizer that GGUF cannot tell of, with the reason.
    """
    path = files.tokenizer.tokenizer_json
    if path is None:
        reason = "has no tokenizer, without which llama.cpp reads no model"
        raise ModelError(files.name, reason, "give it the one that it was trained with")
    text = io.read_text(path)
    values: dict[str, Any] = json.loads(text)
    model = values["model"]
    if model.get("type") not in ("BPE", None) or "merges" not in model:
        raise _refused(files, f"the model {shown(model.get('type'))} is not BPE")
    vocabulary = parse_vocabulary(path, text)
    block = files.config["tokenizer"]
    ids, place = dict(vocabulary.ids), vocabulary.next_id
    added = {content: one["special"] for content, one in vocabulary.added.items()}
    for token in block.get("added_tokens", []):
        if token["content"] not in ids:
            ids[token["content"]], place = place, place + 1
        added[token["content"]] = token["special"]
    begin = _template_begin(values.get("post_processor"))
    named = dict(block.get("special_tokens", {}))
    bos = block.get("bos_token") or begin
    controls = [bos, block.get("eos_token"), *named.values(), *block.get("control_tokens", [])]
    added |= {one: True for one in controls if one in ids}
    tokens = _listed(ids, added, vocab_size)
    found: dict[str, GGUFValue] = {}
    if _is_byte_level(values):
        found["ggml.model"], found["ggml.pre"] = "gpt2", _pre_tokenizer(files, values)
        found["ggml.merges"] = [" ".join(pair) for pair in _merges(model)]
    else:
        found |= _sentencepiece(files, values, tokens)
    found |= {"ggml.tokens": tokens.texts, "ggml.token_type": tokens.kinds}
    found["ggml.add_bos_token"] = bool(block.get("add_bos") or begin) and bos in ids
    if bos in ids:
        found[BOS] = ids[bos]
    ends, left_out = _ends(files, tokens, ids.get(block.get("eos_token") or ""))
    found |= ends
    found |= {key: ids[named[name]] for key, name in NAMED.items() if named.get(name) in ids}
    try:
        read = Fields(Path("GGUF"), cast("dict[str, JSON]", found), block="tokenizer")
        describe_listed(read, "").make()
    except ModelError as error:
        raise _refused(files, f"{error.subject} {error.reason}") from None
    if files.tokenizer.chat_template is not None:
        found["chat_template"] = files.tokenizer.chat_template
    return {f"tokenizer.{key}": value for key, value in found.items()}, left_out


def _refused(files: ModelFiles, reason: str) -> ModelError:
    return ModelError(files.name, f"has a tokenizer that GGUF has no place for: {reason}", INSTEAD)


def _listed(ids: Mapping[str, int], added: Mapping[str, bool], vocab_size: int) -> _Tokens:
    """One token for each row of the embedding, as llama.cpp's converter fills up."""
    texts = [f"[PAD{number}]" for number in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    known = {token: number for token, number in ids.items() if number < vocab_size}
    for token, number in known.items():
        texts[number], kinds[number] = token, NORMAL
        if token in added:
            kinds[number] = CONTROL if added[token] else USER_DEFINED
    return _Tokens(texts, kinds, known)


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The merges, each as two tokens; older files have them in one text."""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _steps(value: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer.json that may be one, several, or null."""
    if value is None:
        return []
    if value["type"] == "Sequence":
        return [step for one in value[inner] for step in _steps(one, inner)]
    return [value]


def _is_byte_level(values: Mapping[str, Any]) -> bool:
    steps = _steps(values.get("pre_tokenizer"), "pretokenizers")
    return any(step["type"] == "ByteLevel" for step in steps)


def _pre_tokenizer(files: ModelFiles, values: Mapping[str, Any]) -> str:
    """The name of how texts are cut into words; the first of those that are the same."""
    normalizers = _steps(values.get("normalizer"), "normalizers")
    for step in normalizers:
        if step["type"] != "NFC":
            raise _refused(files, f"the normalizer {shown(step['type'])}")
    patterns = []
    for step in _steps(values["pre_tokenizer"], "pretokenizers"):
        patterns += _patterns(files, step)
    whole_words = bool(values["model"].get("ignore_merges"))
    wanted = PreTokenizer(tuple(patterns), whole_words, composed=bool(normalizers))
    for name, one in PRE_TOKENIZERS.items():
        if replace(one, adds_bos=False) == wanted:
            return name
    raise _refused(files, f"words are cut by {shown(' then '.join(patterns))}")


def _patterns(files: ModelFiles, step: Mapping[str, Any]) -> list[str]:
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return [GPT2] if step.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}" if step.get("individual_digits") else r"\p{N}+"]
    # What a pattern takes out is a word, and nothing else: those of tiktoken leave nothing between.
    how = (step.get("behavior"), step.get("invert"))
    if kind == "Split" and how in (("Isolated", False), ("Removed", True)):
        pattern = step["pattern"]
        return [pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])]
    raise _refused(files, f"the pre_tokenizer {shown(kind)} with {shown(str(how))}")


def _sentencepiece(
    files: ModelFiles, values: Mapping[str, Any], tokens: _Tokens
) -> dict[str, GGUFValue]:
    """The keys of SentencePiece's BPE: the earlier a piece is merged, the higher is its score."""
    model = values["model"]
    if not model.get("byte_fallback"):
        raise _refused(files, "it has no tokens of bytes, and texts are not cut by ByteLevel")
    prefix = _has_prefix(files, values)
    for token, number in tokens.ids.items():
        if token == model.get("unk_token"):
            tokens.kinds[number] = UNKNOWN
        elif _BYTE.fullmatch(token):
            tokens.kinds[number] = BYTE
    pieces = {token for token, number in tokens.ids.items() if tokens.kinds[number] == NORMAL}
    parts: dict[str, set[tuple[str, str]]] = {}
    last = ""
    for left, right in _merges(model):
        # What is found in a text before it is cut, and bytes, are merged out of nothing.
        if not {left, right, left + right} <= pieces:
            continue
        if left + right != last and left + right in parts:
            raise _refused(files, f"no score tells when {shown(left + right)} is merged")
        last = left + right
        parts.setdefault(last, set()).add((left, right))
    for piece in pieces:
        splits = ((piece[:n], piece[n:]) for n in range(1, len(piece)))
        if {one for one in splits if pieces.issuperset(one)} != parts.get(piece, set()):
            raise _refused(files, f"no score tells of what {shown(piece)} is merged")
    scores = [0.0] * len(tokens.texts)
    for rank, piece in enumerate(parts):
        scores[tokens.ids[piece]] = -float(rank)
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.scores": list(scores),
        "ggml.add_space_prefix": prefix,
    }


def _has_prefix(files: ModelFiles, values: Mapping[str, Any]) -> bool:
    """Whether a text gets a space in front; with SentencePiece one that begins with a space does, too."""
    found = False
    for step in _steps(values.get("normalizer"), "normalizers"):
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == _SPACE:
            found = True
        elif kind != "Replace" or (step["pattern"], step["content"]) != ({"String": " "}, _SPACE):
            raise _refused(files, f"the normalizer {shown(kind)}")
    for step in _steps(values.get("pre_tokenizer"), "pretokenizers"):
        kind = step["type"]
        if (
            kind == "Metaspace"
            and step.get("replacement") == _SPACE
            and not step.get("split", True)
        ):
            found = found or step.get("prepend_scheme", "always") != "never"
        # Gemma's cuts at spaces, of which there are none by then.
        elif kind != "Split" or step["pattern"] != {"String": " "}:
            raise _refused(files, f"the pre_tokenizer {shown(kind)}")
    return found


def _template_begin(value: Any) -> str | None:
    """The token that a post-processor puts in front of every text."""
    for step in _steps(value, "processors"):
        single = step.get("single")
        if isinstance(single, list) and single and "SpecialToken" in single[0]:
            return str(single[0]["SpecialToken"]["id"])
    return None


def _ends(
    files: ModelFiles, tokens: _Tokens, eos: int | None
) -> tuple[dict[str, GGUFValue], list[str]]:
    """The ids that end a reply, of which three have a name and some are known by their texts."""
    ids: Sequence[int] = files.config["generation"].get("eos_ids", [])
    others = [
        number
        for number in ids
        if number != eos and number < len(tokens.texts) and not _is_known(tokens, number)
    ]
    named = [*([] if eos is None else [eos]), *others]
    keys: dict[str, GGUFValue] = dict(zip(ENDS, named, strict=False))
    rest = named[len(ENDS) :]
    return keys, [f"the end token {shown(tokens.texts[number])}" for number in rest]


def _is_known(tokens: _Tokens, number: int) -> bool:
    return tokens.texts[number] in END_TEXTS and tokens.kinds[number] in (CONTROL, USER_DEFINED)
