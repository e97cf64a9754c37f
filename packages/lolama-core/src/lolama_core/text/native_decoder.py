"""Ids → text, by an untrusted tokenizer: a whole row at once.

`generation.text_stream` decodes a row that grows, in whole characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lolama_core.protocols.errors import ModelError
from lolama_core.text.growth_limits import opened_steps
from lolama_core.text.native_guard import call_native

if TYPE_CHECKING:
    import tokenizers

# Steps that make one text of all tokens. What follows sees that text, not tokens.
_JOIN = ("Fuse", "ByteLevel")


class Decoder:
    """Decodes with a native tokenizer.

    Args:
        native: The tokenizer.
        vocabulary: The ids of all its tokens.
        source: The tokenizer's file, for messages.

    Attributes:
        independent: The ids whose text does not depend on the ids around them. Others are single bytes, ids
            of no token, and all ids if a step reads on from one token into the next.

    Raises:
        ModelError: for a decoder with a pattern, whose time could not be bounded.
    """

    def __init__(
        self, native: tokenizers.Tokenizer, vocabulary: Mapping[str, int], source: str
    ) -> None:
        self._native, self._source, self.vocabulary = native, source, vocabulary
        steps = list(opened_steps(native.decoder))
        self.kinds = [step["type"] for step in steps]
        if any("Regex" in step.get("pattern", {}) for step in steps):
            raise ModelError(source, "has a decoder with a pattern", "use another tokenizer.json")
        # The library panics where a token is shorter than what is to be taken from its end. No other step
        # fails, and a guard around every token would take time.
        self._may_panic = any(step["type"] == "Strip" and step["stop"] for step in steps)
        self.independent: frozenset[int] = frozenset()
        if not _reads_across(steps):
            has_bytes = any(step["type"] == "ByteFallback" for step in steps)
            single = {f"<0x{byte:02X}>" for byte in range(256)} if has_bytes else set()
            self.independent = frozenset(i for name, i in vocabulary.items() if name not in single)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that are all in the vocabulary; nothing is left out.

        Raises:
            ModelError: if the tokenizer fails at it.
        """
        if not ids:
            return ""

        def run() -> str:
            text: str = self._native.decode(ids, skip_special_tokens=False)
            return text

        return call_native(run, subject=self._source) if self._may_panic else run()


def _reads_across(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what a step makes of a token depends on tokens behind it, or further before it than one."""
    joined = False
    # Characters that may be missing at the text's beginning. One is always the first token's.
    stripped = 0
    for step in steps:
        name = step["type"]
        if name == "Strip" and joined:
            stripped += step["start"]
        elif name in ("Strip", "CTC") or (name == "Replace" and not step["content"]):
            stripped += 1
        # A BPEDecoder treats the last token apart, whichever that is.
        if name == "BPEDecoder" or (
            joined
            and (
                name in ("ByteFallback", "ByteLevel", "CTC")
                or (name == "WordPiece" and step["cleanup"])
                or (name == "Strip" and (step["stop"] or stripped > 1))
                or (name == "Replace" and len(step["pattern"]["String"]) != 1)
            )
        ):
            return True
        joined = joined or name in _JOIN
    return False
