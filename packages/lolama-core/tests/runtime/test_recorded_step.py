"""Recorded decoding steps, by running the operators that CUDA would record one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lolama_core import Llama, LlamaConfig, TextGenerator
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.recorded_step import DecodingSteps, RecordedStep
from lolama_core.runtime.runner import runner_of
from lolama_core.runtime.step import run

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 2,
    "hidden_dim": 64,
    "max_seq_len": 4096,
}


def make_model(**shape: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**{**SHAPE, **shape})).eval()


def prefill(model: Llama, cache: Any, length: int) -> None:
    ids = (torch.arange(length) * 7 % 60)[None]
    run(model, model.embed(ids).detach(), cache)


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 5}, {"num_kv_heads": 4}, {"head_dim": 6}])
@pytest.mark.parametrize("length", [1, 4, 5, 30])
def test_a_recorded_step_is_a_step(shape: dict[str, Any], length: int) -> None:
    model = make_model(**shape)
    recorded, plain = DecodingSteps(record=True), DecodingSteps(record=False)
    with (
        recorded.lend(model, 50) as (cache, step),
        plain.lend(model, 50) as (other_cache, other_step),
    ):
        prefill(model, cache, length)
        prefill(model, other_cache, length)
        for token in (3, 59, 0, 17):
            torch.testing.assert_close(step(token), other_step(token), atol=1e-5, rtol=1e-5)
        assert cache.lengths == other_cache.lengths == (length + 4,)


def test_twenty_lengths_of_prompt_share_a_recording() -> None:
    model = make_model()
    steps = DecodingSteps(record=True)
    for length in range(1, 1601, 80):
        with steps.lend(model, length + 256) as (cache, step):
            assert cache.lengths == (0,)
            prefill(model, cache, 3)
            first = step(5)
        with steps.lend(model, length + 256) as (cache, step):
            prefill(model, cache, 3)
            assert torch.equal(step(5), first)
    assert steps.recordings == 1
    with steps.lend(model, 3000) as (cache, _):
        assert cache.capacity == 4096
    with steps.lend(model, 10):
        pass
    assert steps.recordings == 2


def test_a_model_that_changes_is_recorded_again() -> None:
    model = make_model()
    steps = DecodingSteps(record=True)
    for _ in range(2):
        with steps.lend(runner_of(model), 9):
            pass
    assert steps.recordings == 1
    model.get_submodule("layers.1.attention").v_proj = torch.nn.Linear(32, 16, bias=False)
    with steps.lend(runner_of(model), 9):
        pass
    assert steps.recordings == 2
    model.register_forward_pre_hook(lambda *_: None)
    with steps.lend(runner_of(model), 9):
        pass
    assert steps.recordings == 3
    model.double().float()
    with steps.lend(runner_of(model), 9):
        pass
    assert steps.recordings == 4


def test_two_at_once_do_not_share() -> None:
    model = make_model()
    steps = DecodingSteps(record=True)
    with steps.lend(model, 9) as (one, _), steps.lend(model, 9) as (other, _):
        prefill(model, one, 4)
        assert other.lengths == (0,)


def test_what_fails_leaves_the_step_as_good_as_new() -> None:
    model = make_model()
    steps = DecodingSteps(record=True)

    def fail() -> None:
        with steps.lend(model, 9) as (cache, step):
            prefill(model, cache, 4)
            step(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with steps.lend(model, 9) as (cache, _):
        assert cache.lengths == (0,)


def test_a_step_past_the_end_is_refused() -> None:
    model = make_model(max_seq_len=16)
    cache = model.make_cache(1, 16)
    step = RecordedStep(model, cache)
    prefill(model, cache, 16)
    with pytest.raises(UsageError, match="17 positions do not fit its capacity of 16"):
        step(1)


def test_a_cache_that_changes_as_it_grows_is_not_recorded() -> None:
    scaling: dict[str, Any] = {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 8}
    config = LlamaConfig.from_json({**SHAPE, "rope_scaling": scaling})
    model, steps = Llama(config).eval(), DecodingSteps(record=True)
    with steps.lend(model, 20) as (cache, step):
        assert cache.capacity == 20
        assert step(3).shape == (1, 60)
    assert steps.recordings == 0


def test_generations_are_the_same_recorded_or_not() -> None:
    model = make_model()
    plain, recorded = TextGenerator(model), TextGenerator(model)
    recorded._steps_of = DecodingSteps(record=True)
    for seed in range(5):
        settings: dict[str, Any] = {"max_new_tokens": 30, "seed": seed, "temperature": 1.5}
        prompt = list(range(1, 2 + 3 * seed))
        ids = plain.generate(prompt, **settings).ids
        assert recorded.generate(prompt, **settings).ids == ids
        with recorded.generate_stream(prompt, **settings) as stream:
            first = iter(stream)
            assert [next(first), next(first)] == list(ids[:2])  # and dropped
    assert recorded._steps_of.recordings == 1
