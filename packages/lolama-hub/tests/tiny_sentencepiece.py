"""Small sentencepiece models, trained on made-up text, and texts to try them on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = (
    "Once upon a time there was little girl named Lily. </s> <s> <unk> [INST] <0x0A> It's, café naïve "
    "你好 🙂 ﬁ Ⅳ １２ \t \n the two 1234 ▁ ▁x"
).split(" ")


def texts(count: int, *, runs_of_spaces: bool = True) -> list[str]:
    """Words, spaces and stray characters, joined at random from a fixed seed."""
    rng = random.Random(20)
    result = ["", "x", "\n\n", "▁x", "two", "hello\nworld", "</s>", "a</s>b"]
    if runs_of_spaces:
        result += ["  two", "  ", " ", "two  ", "a  b", " leading", "hello   world  "]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 14)):
            ranges = rng.choice([(32, 127), (160, 0x250), (0x3040, 0x9FFF), (0x1F300, 0x1F700)])
            parts.append(rng.choice([rng.choice(WORDS), " ", chr(rng.randrange(*ranges))]))
        text = "".join(parts)
        result.append(
            text if runs_of_spaces else " ".join(text.replace("▁", "").split(" ")).strip()
        )
    return [text if runs_of_spaces else " ".join(text.split()) for text in result]


def trainer(folder: Path) -> Callable[..., Path]:
    """Trains a model with the options that it is given, and returns its file."""
    import sentencepiece

    numbers = itertools.count()
    rng = random.Random(1)
    words = (
        "lily dog ran home the a big small house and then played with ball café two 1234".split()
    )
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join("  ".join(rng.choices(words, k=12)) for _ in range(600)))

    def make(**options: Any) -> Path:
        prefix = folder / f"model-{next(numbers)}"
        settings: dict[str, Any] = {
            "model_type": "bpe",
            "vocab_size": 360,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "hard_vocab_limit": False,
            "minloglevel": 2,
        }
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(prefix), **(settings | options)
        )
        return prefix.with_suffix(".model")

    return make
