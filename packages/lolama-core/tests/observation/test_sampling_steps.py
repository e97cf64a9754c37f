"""The distribution after each setting of sampling: the last one is what tokens are drawn from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from lolama_core import GenerationConfig, Sampler, sampling_steps

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
IDS = [0, 3, 3]


def test_without_a_setting_the_model_alone_speaks() -> None:
    config = GenerationConfig(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
    (step,) = sampling_steps(config, IDS, LOGITS)
    assert step.name == "model" and torch.equal(step.probabilities, LOGITS.softmax(-1))


def test_each_setting_in_the_order_of_the_chain() -> None:
    config = GenerationConfig(
        temperature=0.5,
        top_k=4,
        top_p=0.9,
        min_p=0.05,
        repetition_penalty=1.5,
        presence_penalty=0.2,
    )
    steps = sampling_steps(config, IDS, LOGITS, prompt_length=1)
    names = [step.name for step in steps]
    assert names == [
        "model",
        "repetition_penalty",
        "count_penalties",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ]
    assert all(float(step.probabilities.sum()) == pytest.approx(1) for step in steps)
    after = dict(zip(names, (step.probabilities for step in steps), strict=True))
    assert after["repetition_penalty"][0] < after["model"][0]
    assert after["count_penalties"][3] < after["repetition_penalty"][3]
    assert after["temperature"][0] > after["count_penalties"][0]
    assert int((after["top_k"] > 0).sum()) == 4 and int((after["top_p"] > 0).sum()) < 4


def test_a_greedy_choice_has_no_steps_that_keep_the_best_token() -> None:
    steps = sampling_steps(GenerationConfig.greedy(repetition_penalty=9.0), IDS, LOGITS)
    assert [step.name for step in steps] == ["model", "repetition_penalty"]
    assert int(steps[0].probabilities.argmax()) == 0 and int(steps[1].probabilities.argmax()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.6},
        {"typical_p": 0.5},
        {"top_n_sigma": 1.0},
    ],
)
def test_tokens_are_drawn_from_the_last_one(settings: dict[str, Any]) -> None:
    config = GenerationConfig(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, **settings}, seed=1)
    history = torch.tensor([IDS])
    sampler = Sampler.from_config(config, prompt_length=len(IDS))
    drawn = Counter(sampler(history, LOGITS[None]) for _ in range(4000))
    expected = sampling_steps(config, IDS, LOGITS)[-1].probabilities
    found = torch.tensor([drawn[i] / 4000 for i in range(len(LOGITS))])
    assert (found - expected).abs().max() < 0.03
    assert not found[expected == 0].any()


def test_logits_and_history_stay_as_they_are() -> None:
    logits, ids = LOGITS.clone(), list(IDS)
    sampling_steps(GenerationConfig(repetition_penalty=2.0, top_k=1), ids, logits)
    assert torch.equal(logits, LOGITS) and ids == IDS
