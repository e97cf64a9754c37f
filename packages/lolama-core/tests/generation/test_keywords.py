"""Keywords of a generation: typed as the settings are, and names of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from lolama_core import GenerationConfig, Llama, TextGenerator
from lolama_core.generation.generation_config import GenerationSettings
from lolama_core.generation.keywords import Keywords
from lolama_core.protocols.errors import UsageError

MakeLlama = Callable[..., Llama]
GREEDY = GenerationConfig.greedy(max_new_tokens=5)


def test_every_setting_is_a_typed_keyword() -> None:
    names = {field.name for field in fields(GenerationConfig)}
    assert names == GenerationSettings.__annotations__.keys()
    assert names <= Keywords.__optional_keys__


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"eos_token_id": None}, {"ignore_eos": True}),
        ({"max_tokens": 3}, {"max_new_tokens": 3}),
        ({"pad_token_id": 0, "num_beams": 1, "num_return_sequences": 1}, {}),
    ],
)
def test_row_129_names_of_other_libraries_for_the_same(
    tiny_llama: MakeLlama, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    generator = TextGenerator(tiny_llama())
    expected = generator.generate([1, 2], GREEDY, **ours)
    assert generator.generate([1, 2], GREEDY, **theirs) == expected
    assert generator.generate_batch([[1, 2]], GREEDY, **theirs) == [expected]
    stream = generator.generate_stream([1, 2], GREEDY, **theirs)
    assert tuple(stream) == expected.ids


@pytest.mark.parametrize(
    ("keyword", "remedy"),
    [
        ({"eos_token_id": 3}, "ignore_eos=True for None"),
        ({"do_sample": False}, "temperature=0"),
        ({"max_length": 9}, "max_new_tokens, which counts new tokens alone"),
        ({"num_return_sequences": 2}, "generate_batch"),
        ({"repeat_penalty": 1.2}, "repetition_penalty"),
        pytest.param({"repeat_penalty": 10**5000}, "repetition_penalty", id="huge"),
        ({"streamer": object()}, "generate_stream"),
    ],
)
def test_row_129_other_names_are_told_what_they_are_here(
    tiny_llama: MakeLlama, keyword: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(keyword))}: .*here it is .*{remedy}"):
        TextGenerator(tiny_llama()).generate([1], **keyword)


def test_row_129_two_names_for_one_setting(tiny_llama: MakeLlama) -> None:
    with pytest.raises(UsageError, match="max_tokens: and max_new_tokens are given"):
        TextGenerator(tiny_llama()).generate([1], max_tokens=1, max_new_tokens=2)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("temprature", "temperature"), ("top_pp", "top_p"), ("sede", "seed")]
)
def test_a_misspelled_setting_is_told_the_right_one(
    tiny_llama: MakeLlama, wrong: str, meant: str
) -> None:
    keyword: Any = {wrong: 1}
    with pytest.raises(UsageError, match=f"^{wrong}: .*did you mean {meant}") as caught:
        TextGenerator(tiny_llama()).generate([1], **keyword)
    assert "picture" not in str(caught.value)


def test_pictures_for_a_text_model_are_named_as_such(tiny_llama: MakeLlama) -> None:
    with pytest.raises(UsageError, match="pixel_values: is no input of a text model; pictures"):
        TextGenerator(tiny_llama()).generate([1], pixel_values=torch.zeros(1))
