"""A prompt gets the same tokens alone, streamed, and in batches of any company and order."""

from __future__ import annotations

import pytest
from benchmarks.sameness import TOKENS, divergences, prompts

from lolama_core import GenerationConfig, load


@pytest.mark.parametrize(
    "config",
    [
        GenerationConfig.greedy(max_new_tokens=TOKENS),
        GenerationConfig.sampling(temperature=0.8, seed=5, max_new_tokens=TOKENS),
    ],
    ids=["greedy", "seeded"],
)
def test_a_hundred_prompts_in_float32(config: GenerationConfig) -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    assert len(set(prompts())) > 70
    assert list(divergences(model, tokenizer, config)) == []
