"""Whether two tokenizers have the same tokens, and what the first difference is."""

from __future__ import annotations

import json

import pytest

from lolama_core import Tokenizer, vocabulary_difference
from lolama_core.testing import tiny

IDS = {"<s>": 0, "</s>": 1, "<unk>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6}
MERGES = [("▁", "a")]


def text(ids: dict[str, int], *, specials: tuple[str, ...] = ("<s>", "</s>")) -> str:
    return tiny.with_pieces(ids, MERGES, specials=specials, bos="<s>")


def difference(one: Tokenizer, other: Tokenizer) -> str | None:
    found = vocabulary_difference(one, other)
    assert (vocabulary_difference(other, one) is None) == (found is None)
    return found


def test_the_same_file() -> None:
    assert difference(Tokenizer(text(IDS)), Tokenizer(text(IDS))) is None


def test_another_file_with_the_same_tokens() -> None:
    """What splits a text, begins or ends it, and the chat template make no difference."""
    other = json.loads(text(IDS))
    other["model"]["merges"], other["normalizer"], other["post_processor"] = [], None, None
    template = "{{ messages[0].content }}"
    two = Tokenizer(json.dumps(other), chat_template=template, eos_token="</s>", eos_ids=[4])
    assert difference(Tokenizer(text(IDS)), two) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (IDS | {"a": 5, "b": 4}, "the id 4 is 'a' here and 'b' there"),
        (IDS | {"c": 7}, "the id 7 is no token here and 'c' there"),
        (IDS | {"b": 9}, "the id 5 is 'b' here and no token there"),
    ],
)
def test_another_token(changed: dict[str, int], words: str) -> None:
    assert difference(Tokenizer(text(IDS)), Tokenizer(text(changed))) == words


def test_a_token_that_was_added() -> None:
    block = {"content": "<|user|>", "special": True}
    added = Tokenizer(text(IDS), added_tokens=[block])  # type: ignore[list-item] # some of its flags
    assert difference(added, Tokenizer(text(IDS), added_tokens=[block])) is None  # type: ignore[list-item]
    assert (
        difference(Tokenizer(text(IDS)), added) == "the id 7 is no token here and '<|user|>' there"
    )
    # It makes no difference whether the file has it, or it was added to it.
    whole = Tokenizer(text(IDS, specials=("<s>", "</s>", "<|user|>")))
    assert difference(whole, added) is None


def test_another_control_token() -> None:
    plain = Tokenizer(text(IDS, specials=("<s>",)))
    words = "the id 1, '</s>', is a control token here alone"
    assert difference(Tokenizer(text(IDS)), plain) == words
