"""How much longer a tokenizer's own steps make a text: bounded before they run.

A ``tokenizer.json`` of some kilobytes may double a text again and again. The library obeys until the
memory is used up, and then ends the process.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lolama_core.protocols.errors import ModelError

if TYPE_CHECKING:
    import tokenizers

_REMEDY = "use another tokenizer.json"
# Published files have up to a dozen steps, which put in a character or two.
_MOST_STEPS = 50
_LONGEST_INSERT = 1000
_MOST_GROWTH = 100
# A text may grow to this many bytes, or to this many times its own: the library takes some 20 bytes for each.
_LEAST_LIMIT = 1_000_000
_MOST_FACTOR = 16


@dataclass(frozen=True)
class _Step:
    """One step, and what it makes of n bytes: at most ``factor`` · n + ``offset``."""

    values: dict[str, Any]
    factor: float = 1
    offset: float = 0


class TextGrowth:
    """Keeps a tokenizer from making a text too long.

    Args:
        native: The tokenizer.
        source: Its file, for messages.

    Raises:
        ModelError: for steps that no real tokenizer has: too many, with very long texts to put in, or a
            decoder or pre-tokenizer that multiplies what it gets.
    """

    def __init__(self, native: tokenizers.Tokenizer, source: str) -> None:
        self._source = source
        self._normalizer = list(_steps(native.normalizer))
        self._added = [token.content for token in native.get_added_tokens_decoder().values()]
        others = {
            "pre-tokenizer": list(_steps(native.pre_tokenizer)),
            "decoder": list(_steps(native.decoder)),
        }
        for part, steps in {"normalizer": self._normalizer, **others}.items():
            if len(steps) > _MOST_STEPS:
                raise ModelError(
                    source, f"has a {part} of {len(steps)} steps, more than {_MOST_STEPS}", _REMEDY
                )
            for step in steps:
                self._check_insert(_inserted(step.values))
            if part in others and math.prod(step.factor for step in steps) > _MOST_GROWTH:
                reason = f"has a {part} that makes texts more than {_MOST_GROWTH} times as long"
                raise ModelError(source, reason, _REMEDY)
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            self._check_insert(getattr(native.model, name, None) or "")
        self._factor, self._offset = 1.0, 0.0
        for step in self._normalizer:
            self._factor, self._offset = (
                self._factor * step.factor,
                self._offset * step.factor + step.offset,
            )

    def _check_insert(self, text: str) -> None:
        if len(text) > _LONGEST_INSERT:
            reason = f"puts {len(text)} characters into a text at once, more than {_LONGEST_INSERT}"
            raise ModelError(self._source, reason, _REMEDY)

    def check(self, text: str) -> None:
        """Refuse a text that would become too long.

        Raises:
            ModelError: saying so.
        """
        # Between added tokens each piece is normalized for itself; there are no more pieces than characters.
        if (4 * self._factor + self._offset) * (len(text) + 1) <= _LEAST_LIMIT:
            return
        limit = max(_LEAST_LIMIT, _MOST_FACTOR * len(text.encode()))
        pieces = sum(text.count(token) for token in self._added if token)
        if self._grown(text, limit) + pieces * self._grown("a", limit) > limit:
            raise self._too_long(limit)

    def _grown(self, text: str, limit: int) -> int:
        """Bytes that the normalizer makes of a text, found step by step."""
        from tokenizers import normalizers

        for step in self._normalizer:
            size = len(text.encode())
            pattern = step.values.get("pattern", {}).get("String", "")
            expected = step.factor * size + step.offset
            if pattern:
                added = len(step.values["content"].encode()) - len(pattern.encode())
                expected = size + text.count(pattern) * added
            elif step.factor <= _MOST_FACTOR:
                # It makes little more of almost every text; what it made is measured afterwards.
                expected = size
            if max(size, expected) > limit:
                raise self._too_long(limit)
            native: Any = normalizers.NFC()  # becomes what its state says
            native.__setstate__(json.dumps(step.values).encode())
            text = native.normalize_str(text)
        return len(text.encode())

    def _too_long(self, limit: int) -> ModelError:
        reason = f"has a normalizer that makes more than {limit} bytes of this text"
        return ModelError(self._source, reason, _REMEDY)


def opened_steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a native normalizer, pre-tokenizer or decoder, sequences within sequences opened."""
    if part is not None:
        yield from _opened(json.loads(part.__getstate__()))


def _opened(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("normalizers", "pretokenizers", "decoders"):
        for inner in values.get(name, []) if values["type"] == "Sequence" else []:
            yield from _opened(inner)
    if values["type"] != "Sequence":
        yield values


def _steps(part: Any) -> Iterator[_Step]:
    for values in opened_steps(part):
        factor, offset = _growth(values)
        yield _Step(values, factor, offset)


def _growth(values: dict[str, Any]) -> tuple[float, float]:
    """A step's ``factor`` and ``offset``."""
    name, inserted = values["type"], len(_inserted(values).encode())
    if name == "Replace":
        replaced = len(values["pattern"].get("String", "").encode())
        # A pattern may match nothing at all, between any two characters.
        return (max(1.0, inserted / replaced), 0) if replaced else (1 + inserted, inserted)
    if name == "Precompiled":
        return _longest_mapping(values["precompiled_charsmap"]), 0
    return _GROWTH_FACTORS.get(name, 1), inserted


# Into how many bytes a step may turn one byte. Compatibility forms turn 3, an Arabic ligature, into 33.
_GROWTH_FACTORS = {
    "NFD": 4,
    "NFC": 4,
    "NFKD": 12,
    "NFKC": 12,
    "Lowercase": 2,
    "BertNormalizer": 16,
    "ByteLevel": 2,
    "Metaspace": 3,
    "WordPiece": 2,
    "BPEDecoder": 2,
    "CTC": 2,
}


def _inserted(values: dict[str, Any]) -> str:
    """What a step puts into a text."""
    return str(values.get("prepend") or values.get("content") or "")


def _longest_mapping(charsmap: str) -> int:
    """Bytes of the longest text in a sentencepiece map: size of a trie, the trie, texts between NULs."""
    data = base64.b64decode(charsmap)
    texts: Sequence[bytes] = data[4 + int.from_bytes(data[:4], "little") :].split(b"\0")
    return max(1, *map(len, texts))
