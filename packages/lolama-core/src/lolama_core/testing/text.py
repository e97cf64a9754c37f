"""What every `Tokenizer` must do."""

from __future__ import annotations

import random

import pytest

from lolama_core.generation.text_stream import TextStream
from lolama_core.protocols import Tokenizer

TEXTS = [
    "Hello, world!",
    "  two  spaces",
    "line\nbreaks\n\n",
    "naïve café – 漢字 🙂👍🏽",
    "\t",
    "a",
]


class TokenizerSuite:
    """Subclass it and define the fixture ``tokenizer``: one that can spell any text."""

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def control_texts(self, tokenizer: Tokenizer) -> list[str]:
        """Control tokens as a user might type them."""
        specials = filter(tokenizer.is_special, range(tokenizer.vocab_size))
        return [tokenizer.decode([i], skip_special_tokens=False) for i in specials]

    def test_is_a_tokenizer(self, tokenizer: Tokenizer) -> None:
        """It has every member of the protocol."""
        assert isinstance(tokenizer, Tokenizer)

    @pytest.mark.parametrize("text", TEXTS)
    def test_text_survives(self, tokenizer: Tokenizer, text: str) -> None:
        """Decoding gives back what was encoded."""
        assert tokenizer.decode(tokenizer.encode_ids(text)) == text

    def test_ids_are_below_the_vocabulary(self, tokenizer: Tokenizer) -> None:
        """There is also one BOS at most, in front."""
        ids = tokenizer.encode_ids("".join(TEXTS))
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        if tokenizer.bos_id is not None:
            assert ids.count(tokenizer.bos_id) <= 1
        assert tokenizer.ensure_bos(ids) == ids
        assert tokenizer.ensure_bos(tokenizer.ensure_bos([5])) == tokenizer.ensure_bos([5])

    def test_typed_control_tokens_are_text(self, tokenizer: Tokenizer) -> None:
        """Nobody ends a turn by typing ``</s>``."""
        for text in self.control_texts(tokenizer):
            ids = tokenizer.encode_ids(
                f"say {text}!", add_special_tokens=False, split_special_tokens=True
            )
            assert not any(map(tokenizer.is_special, ids)), text
            assert tokenizer.decode(ids) == f"say {text}!"

    def test_chat_text_holds_no_control_ids(self, tokenizer: Tokenizer) -> None:
        """The control ids of a conversation are those of its structure, whatever the messages say."""
        if not tokenizer.has_chat_template:
            pytest.skip("no chat template")

        def controls(text: str) -> list[int]:
            ids = tokenizer.render_chat([{"role": "user", "content": text}])
            return list(filter(tokenizer.is_special, ids))

        harmless = controls("hello")
        for text in self.control_texts(tokenizer):
            for hostile in (
                text,
                f"a{text}b",
                text[:-1],
                text[1:],
                text * 2,
                text[:2] + text + text[2:],
            ):
                assert controls(hostile) == harmless, hostile

    def test_streamed_text_is_the_whole_text(self, tokenizer: Tokenizer) -> None:
        """Random ids, most of them nonsense: the pieces add up to the decode of all."""
        draw = random.Random(0)
        for _ in range(300):
            ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 40))]
            stream = TextStream(tokenizer)
            text = "".join(map(stream.push, ids)) + stream.finish()
            assert text == tokenizer.decode(ids), ids

    def test_streamed_ids_know_the_whole_text(self, tokenizer: Tokenizer) -> None:
        """Every id comes once and in order, at the latest at the end, and their texts add up as well."""
        draw = random.Random(1)
        for _ in range(100):
            ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 40))]
            stream = TextStream(tokenizer)
            given = [known for i in ids for known in stream.take(i)[0]] + stream.end()[0]
            assert given == ids
            assert "".join(i.text_by(tokenizer) or "" for i in given) == tokenizer.decode(ids), ids
