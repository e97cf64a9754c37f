"""Texts held against grammars, as a model that writes exactly these would meet them."""

from __future__ import annotations

from collections.abc import Collection

from lolama.grammar import Grammar, GrammarCompiler
from lolama_core import Tokenizer, token_bytes
from lolama_core.protocols import Constraint
from lolama_core.testing import tiny

PIECES = ['{"name": "été", "n": 12}', "hello world, hello there", '":"', "yes no true false null"]


def of_bytes() -> Tokenizer:
    """Bytes and what is common, as in Llama 3; a control token and one that belongs to texts."""
    vocabulary, merges = tiny.learn_bytes(PIECES * 3, 320)
    text = tiny.byte_level(
        vocabulary, merges, specials=["<s>", "</s>", "<|call|>"], added=["<tool>"], bos="<s>"
    )
    return Tokenizer(text, bos_token="<s>", eos_token="</s>")


def of_pieces() -> Tokenizer:
    """Pieces with ▁ and single bytes, as in Llama 2."""
    pieces, merges = tiny.learn_pieces(PIECES * 3, 90)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {name: number for number, name in enumerate([*names, *pieces])}
    text = tiny.with_pieces(vocabulary, merges, specials=names[:3], bos="<s>", byte_fallback=True)
    return Tokenizer(text, bos_token="<s>", eos_token="</s>")


class Speller:
    """Writes texts token by token, where a grammar lets it.

    Args:
        tokenizer: What its tokens are.
        ends: Ids that end a text; those of the tokenizer, if not given.
    """

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int] = ()) -> None:
        self.tokenizer, self.ends = tokenizer, sorted(ends or tokenizer.eos_ids)
        self.compiler = GrammarCompiler(tokenizer, self.ends, tokenizer.vocab_size)
        self._texts = token_bytes(tokenizer).texts

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Whether a text of the grammar is exactly this one."""
        return self.writes(self.compiler.compile(grammar), text)

    def writes(self, constraint: Constraint, text: str) -> bool:
        """Whether masks lead through a text to an end token, by the longest tokens that they allow."""
        left = text.encode()
        while left:
            mask = constraint.mask()
            assert mask is not None
            allowed = [
                (len(self._texts[token]), token)
                for token in mask.nonzero().flatten().tolist()
                if token not in self.ends
                and self._texts[token]
                and left.startswith(self._texts[token])
            ]
            if not allowed:
                return False
            length, token = max(allowed)
            constraint.accept(token)
            left = left[length:]
        mask = constraint.mask()
        assert mask is not None
        ends = {bool(mask[end]) for end in self.ends}
        assert len(ends) == 1, "some end tokens are allowed, and others are not"
        return ends.pop()
