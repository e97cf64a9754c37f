"""Texts cut into words, by the names that GGUF files have for it."""

from __future__ import annotations

import random

import pytest
from tokenizers import Regex, pre_tokenizers

from lolama_hub.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

PARTS = (
    "It's IT'S don’t HelloWorld camelCase ABC abc é e\u0301 Ω ж 你好 こんにちは 한국어 ไทย हिन्दी 🙂 👩‍👩‍👧 "
    "1 12 123 1234 123456789 ½ Ⅳ ٣٤٥ ... ?! #tag /path {} <x> _a_ \t \n \r\n \n\n   \u3000 \u00a0 $5 +=- ^~|`"
).split(" ")


def words(pre: PreTokenizer, text: str) -> list[str]:
    steps = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in pre.patterns]
    return [word for word, _ in pre_tokenizers.Sequence(steps).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_no_character_is_lost(name: str) -> None:
    rng = random.Random(1)
    for _ in range(100):
        text = rng.choice(["", " "]).join(rng.choices(PARTS, k=12))
        assert "".join(words(PRE_TOKENIZERS[name], text)) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["It", "'", "S", " 12345", " HelloWorld", "\n\n ", " end"]),
        ("llama-bpe", ["It", "'S", " ", "123", "45", " HelloWorld", "\n\n", " ", " end"]),
        ("qwen2", ["It", "'S", " ", "1", "2", "3", "4", "5", " HelloWorld", "\n\n", " ", " end"]),
        ("smollm", ["It", "'", "S", " ", "1", "2", "3", "4", "5", " HelloWorld", "\n\n ", " end"]),
        (
            "tekken",
            ["It", "'S", " ", "1", "2", "3", "4", "5", " Hello", "World", "\n\n", " ", " end"],
        ),
        ("gpt-4o", ["It'S", " ", "123", "45", " Hello", "World", "\n\n", " ", " end"]),
        ("deepseek-v3", ["It", "'S", " ", "123", "45", " HelloWorld", "\n\n", " ", " end"]),
        ("falcon", ["It", "'", "S", " ", "123", "45", " HelloWorld", "\n\n ", " end"]),
        ("superbpe", ["It'S ", "12", "345", " HelloWorld\n\n  end"]),
    ],
)
def test_words(name: str, expected: list[str]) -> None:
    assert words(PRE_TOKENIZERS[name], "It'S 12345 HelloWorld\n\n  end") == expected


def test_a_long_text_takes_no_exponential_time() -> None:
    for pre in PRE_TOKENIZERS.values():
        for unit in ("a", "A", "1", " ", "\n", "'", "é", "aA", "1 ", "你"):
            assert sum(map(len, words(pre, unit * 300))) == 300 * len(unit)
