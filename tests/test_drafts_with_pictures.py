"""A vision model whose texts try tokens ahead: behind pictures, beside texts without any, as alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.model_changes import IMAGE_TOKEN, int8_model, random_model, seeing_model

from lolama_core import Engine, Generation, Llama, PrefixCache, TextGenerator
from lolama_core.generation.speculation import Drafting, Speculation
from lolama_core.testing.drafts import EagerSpeculation
from lolama_vision import LLaVA

PROMPTS = [
    [3, 17, IMAGE_TOKEN, 5, 80],
    [3, 17, IMAGE_TOKEN, 5, 81, 9],
    [7, 8, 9, 7, 8, 9, 7, 8],
    [IMAGE_TOKEN, 4],
]
"""Two begin alike, with different pictures."""

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.0, "repetition_penalty": 1.0},
    {"seed": 3, "temperature": 0.8},
    # A text of two tokens, which lookup finds again.
    {"seed": 4, "temperature": 5.0, "logit_bias": {11: 60.0, 12: 60.0}},
]


def inputs_of(place: int) -> dict[str, Any]:
    """A picture of its own for each prompt that has a place for one."""
    if IMAGE_TOKEN not in PROMPTS[place]:
        return {}
    generator = torch.Generator().manual_seed(place)
    return {"pixel_values": torch.randn(1, 3, 28, 28, generator=generator)}


def run(engine: Engine[None], settings: dict[str, Any]) -> list[Generation[None]]:
    """The texts of all prompts together."""
    tickets = [
        engine.submit(
            prompt,
            max_new_tokens=30,
            ignore_eos=True,
            suppress_tokens=[IMAGE_TOKEN],
            **settings,
            **inputs_of(place),
        )
        for place, prompt in enumerate(PROMPTS)
    ]
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    assert engine.used_cache_bytes == 0
    return [results[ticket] for ticket in tickets]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("make", [random_model, int8_model])
@pytest.mark.parametrize("kind", ["lookup", "model", "itself"])
def test_texts_behind_pictures_are_as_without_drafts(
    kind: str, make: Callable[[], Llama], bidirectional: bool
) -> None:
    """The draft model reads ids alone: it guesses for the text without a picture, and for no other."""
    model: LLaVA = seeing_model(make(), bidirectional=bidirectional)
    draft: Drafting = "lookup"
    if kind != "lookup":
        draft = random_model() if kind == "model" else model.language_model
    prefixes = PrefixCache(1 << 20)
    ways: list[Drafting | Speculation] = [draft, EagerSpeculation(draft)]
    for settings in SETTINGS:
        alone = run(Engine(model, rows=4, draft="off"), settings)
        expected = [replace(one, cached_tokens=0) for one in alone]
        for way, memory_of in itertools.product(ways, (None, prefixes.memory_of)):
            engine = Engine(model, rows=4, prefill_chunk=64, draft=way, memory_of=memory_of)
            found = run(engine, settings)
            assert [replace(one, cached_tokens=0) for one in found] == expected
            if way is draft:
                continue
            tried = [one.drafted_tokens > 0 for one in found]
            if kind != "lookup":
                assert tried == [False, False, True, False]
            elif "logit_bias" in settings:
                assert all(tried)
                assert all(0 < one.accepted_tokens < one.drafted_tokens for one in found)


@pytest.mark.parametrize("kind", ["lookup", "model"])
def test_a_generator_of_a_vision_model_takes_drafts(kind: str) -> None:
    model = seeing_model(random_model())
    draft: Drafting = "lookup" if kind == "lookup" else random_model()
    for prefix_cache in (None, PrefixCache(1 << 20)):
        drafted = TextGenerator(model, draft=draft, prefix_cache=prefix_cache)
        for place, prompt in enumerate(PROMPTS):
            settings: dict[str, Any] = {"seed": 1, "max_new_tokens": 20, **inputs_of(place)}
            settings["suppress_tokens"] = [IMAGE_TOKEN]
            expected = TextGenerator(model, draft="off").generate(prompt, **settings)
            for _ in range(2):
                assert drafted.generate(prompt, **settings).ids == expected.ids
