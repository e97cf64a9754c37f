"""What a caller hands in is checked against the model before anything is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lolama_core import BatchGenerator, GenerationConfig, Llama, TextGenerator
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import GenerationDefaults

MakeLlama = Callable[..., Llama]

# Each with an id that a vocabulary of 64 does not have.
UNKNOWN: list[tuple[str, Any]] = [
    ("suppress_tokens", [3, 64]),
    ("logit_bias", {5: 1.0, 64: -100.0}),
    ("bad_words_ids", [[1], [2, 64, 3]]),
    ("dry_sequence_breakers", [7, 64]),
]


def greedy(**settings: Any) -> GenerationConfig:
    """Settings that need no tokenizer."""
    return GenerationConfig.greedy(max_new_tokens=4, **settings)


@pytest.mark.parametrize(("name", "value"), UNKNOWN)
def test_row_261_ids_of_no_token_are_refused_at_every_entrance(
    name: str, value: Any, tiny_llama: MakeLlama
) -> None:
    model = tiny_llama(vocab_size=64)
    settings: dict[str, Any] = {name: value}
    generator, config = TextGenerator(model), greedy(**settings)
    entrances: list[Callable[[], object]] = [
        lambda: generator.generate([1, 2], config),
        lambda: generator.generate([1, 2], **settings),
        lambda: generator.generate_stream([1, 2], config),
        lambda: generator.generate_batch([[1, 2], [3]], [greedy(), config]),
        lambda: BatchGenerator(model).submit([1, 2], config),
    ]
    reason = f"^{name}: 64 is not a token id below 64, the size of the vocabulary$"
    for entrance in entrances:
        with pytest.raises(UsageError, match=reason):
            entrance()


def test_row_261_the_last_token_of_the_vocabulary_is_one(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=64))
    settings: dict[str, Any] = {
        "suppress_tokens": [63],
        "bad_words_ids": [[1, 63]],
        "dry_sequence_breakers": [63],
    }
    assert 63 not in generator.generate([1, 2], greedy(**settings)).ids
    assert generator.generate([1, 2], greedy(logit_bias={63: 1e6})).ids == (63,) * 4


def test_row_261_a_huge_id_is_refused_in_few_words(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=64))
    with pytest.raises(UsageError, match=r"^suppress_tokens: a huge integer is not a token id"):
        generator.generate([1, 2], suppress_tokens=[10**5000])


@pytest.mark.parametrize(("name", "value"), UNKNOWN)
def test_row_261_what_the_authors_of_a_model_recommend_stays(
    name: str, value: Any, tiny_llama: MakeLlama
) -> None:
    """Such ids are never chosen. A word with one makes no sense there, either."""
    model = tiny_llama(vocab_size=64)
    generator = TextGenerator(model)
    expected = generator.generate([1, 2], greedy(**{name: _known(value)})).ids
    model.generation_defaults = GenerationDefaults(sampling={name: value})
    recommended = greedy().with_recommended(model.generation_defaults.sampling)
    if name == "bad_words_ids":
        with pytest.raises(UsageError, match=r"^bad_words_ids: 64 is not a token id"):
            generator.generate([1, 2], recommended)
        return
    assert generator.generate([1, 2], recommended).ids == expected
    plain: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
    assert generator.generate([1, 2], max_new_tokens=4, **plain).ids == expected
    more = {9: 1.0, **value} if isinstance(value, dict) else [9, *value]
    other: dict[str, Any] = {name: more}
    with pytest.raises(UsageError, match=f"^{name}: 64 is not a token id"):
        generator.generate([1, 2], **other)


def _known(value: Any) -> Any:
    """The same setting without ids of no token."""
    if isinstance(value, dict):
        return {token_id: bias for token_id, bias in value.items() if token_id < 64}
    return [each for each in value if each != 64 and not isinstance(each, list)]
