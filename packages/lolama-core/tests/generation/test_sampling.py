from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from lolama_core import GenerationConfig, Sampler
from lolama_core.generation import sampling, truncation
from lolama_core.protocols import LogitsProcessor
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.testing.sampling import LogitsProcessorSuite

NO_HISTORY = torch.zeros((1, 0), dtype=torch.int64)
PROCESSORS: dict[str, LogitsProcessor] = {
    "repetition_penalty": partial(sampling.repetition_penalty, penalty=1.3),
    "count_penalties": partial(
        sampling.count_penalties, prompt_length=3, presence=0.5, frequency=0.25
    ),
    "logit_bias": partial(sampling.logit_bias, bias={3: 2.0, 49: -5.0, 50: 1.0}),
    "temperature": partial(sampling.temperature, value=0.5),
}


class TestProcessors(LogitsProcessorSuite):
    @pytest.fixture(params=PROCESSORS)
    def processor(self, request: pytest.FixtureRequest) -> LogitsProcessor:
        return PROCESSORS[request.param]


def logits(*probabilities: float) -> Tensor:
    """(1, V) scores whose softmax is ``probabilities``."""
    return torch.tensor([probabilities]).log()


def test_repetition_penalty_by_hand() -> None:
    scores = torch.tensor([[3.0, -3.0, 2.0, -2.0, 0.0]])
    seen = torch.tensor([[0, 0, 1, 4]])  # twice is no worse than once
    result = sampling.repetition_penalty(seen, scores, penalty=2.0)
    assert result.tolist() == [[1.5, -6.0, 2.0, -2.0, 0.0]]


def test_count_penalties_by_hand() -> None:
    history = torch.tensor([[0, 1, 2, 2, 2, 3]])  # 0 and 1 are the prompt
    result = sampling.count_penalties(
        history, torch.zeros((1, 5)), prompt_length=2, presence=0.5, frequency=0.25
    )
    assert result.tolist() == [[0.0, 0.0, -1.25, -0.75, 0.0]]


def test_nothing_generated_is_not_penalized() -> None:
    scores = torch.randn(1, 5)
    history = torch.tensor([[1, 2]])
    result = sampling.count_penalties(history, scores, prompt_length=2, presence=1.0, frequency=1.0)
    assert torch.equal(result, scores)


def test_logit_bias_by_hand() -> None:
    result = sampling.logit_bias(NO_HISTORY, torch.ones((1, 3)), bias={0: 2.0, 2: -1.5, 7: 9.0})
    assert result.tolist() == [[3.0, 1.0, -0.5]]


def test_temperature_by_hand() -> None:
    scores = logits(0.2, 0.8)
    assert sampling.temperature(NO_HISTORY, scores, value=0.5).softmax(-1).tolist()[
        0
    ] == pytest.approx([0.04 / 0.68, 0.64 / 0.68])


WARPERS: list[tuple[LogitsProcessor, Callable[[], Any]]] = [
    (
        partial(sampling.repetition_penalty, penalty=1.7),
        lambda: transformers.RepetitionPenaltyLogitsProcessor(1.7),
    ),
    (
        partial(sampling.repetition_penalty, penalty=0.6),
        lambda: transformers.RepetitionPenaltyLogitsProcessor(0.6),
    ),
    (partial(sampling.temperature, value=0.7), lambda: transformers.TemperatureLogitsWarper(0.7)),
    (partial(truncation.top_k, k=1), lambda: transformers.TopKLogitsWarper(1)),
    (partial(truncation.top_k, k=7), lambda: transformers.TopKLogitsWarper(7)),
    (partial(truncation.top_k, k=1000), lambda: transformers.TopKLogitsWarper(1000)),
    (partial(truncation.top_p, p=0.1), lambda: transformers.TopPLogitsWarper(0.1)),
    (partial(truncation.top_p, p=0.9), lambda: transformers.TopPLogitsWarper(0.9)),
    (partial(truncation.min_p, p=0.05), lambda: transformers.MinPLogitsWarper(0.05)),
    (partial(truncation.min_p, p=0.5), lambda: transformers.MinPLogitsWarper(0.5)),
    (partial(truncation.typical_p, p=0.2), lambda: transformers.TypicalLogitsWarper(0.2)),
    (partial(truncation.typical_p, p=0.95), lambda: transformers.TypicalLogitsWarper(0.95)),
]


@pytest.mark.parametrize("index", range(len(WARPERS)))
@pytest.mark.parametrize("kind", ["normal", "ties", "masked"])
def test_equals_transformers(index: int, kind: str) -> None:
    ours, theirs = WARPERS[index]
    generator = torch.Generator().manual_seed(index)
    for _ in range(20):
        scores = torch.randn((4, 101), generator=generator) * 3
        if kind == "ties":
            scores = scores.round()
        if kind == "masked":
            scores[:, ::3] = -math.inf
        history = torch.randint(0, 101, (4, 12), generator=generator)
        assert torch.equal(ours(history, scores), theirs()(history, scores))


def test_the_order_of_the_chain() -> None:
    config = GenerationConfig.sampling(
        xtc_probability=0.5,
        typical_p=0.9,
        min_p=0.1,
        top_p=0.9,
        top_k=5,
        top_n_sigma=1.0,
        temperature=0.5,
        logit_bias={1: 1.0},
        dry_multiplier=0.8,
        dry_sequence_breakers=[],
        frequency_penalty=0.1,
        repetition_penalty=1.2,
    )
    chain = sampling.build_chain(config, prompt_length=2, vocab_size=9)
    names = [getattr(each, "func", type(each)).__name__ for each in chain]
    assert names == [
        "repetition_penalty",
        "count_penalties",
        "Dry",
        "logit_bias",
        "mask_unused",
        "temperature",
        "top_n_sigma",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "xtc",
    ]


def test_settings_that_change_nothing_cost_nothing() -> None:
    assert sampling.build_chain(GenerationConfig.sampling(), prompt_length=2) == []
    greedy = GenerationConfig.greedy(
        top_p=0.5, top_k=9, min_p=0.5, typical_p=0.2, top_n_sigma=1, xtc_probability=1
    )
    assert sampling.build_chain(greedy, prompt_length=2) == []
    neutral: list[dict[str, Any]] = [
        {"dry_multiplier": 0.0, "dry_base": 3.0, "dry_allowed_length": 1},
        {"dry_multiplier": 1.0, "dry_penalty_last_n": 0},
        {"top_n_sigma": 0},
        {"xtc_probability": 0, "xtc_threshold": 0.2},
        {"xtc_probability": 1.0, "xtc_threshold": 0.51},
    ]
    for settings in neutral:
        config = GenerationConfig.sampling(**settings)
        assert sampling.build_chain(config, prompt_length=2) == []


def test_the_chain_equals_that_of_transformers() -> None:
    """All of it together, as ``transformers.generate`` puts it together."""
    config = GenerationConfig.sampling(
        repetition_penalty=1.2, temperature=0.8, top_k=20, top_p=0.9, min_p=0.02, typical_p=0.9
    )
    chain = sampling.build_chain(config, prompt_length=4)
    theirs = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.2),
            transformers.TemperatureLogitsWarper(0.8),
            transformers.TopKLogitsWarper(20),
            transformers.TopPLogitsWarper(0.9),
            transformers.MinPLogitsWarper(0.02),
            transformers.TypicalLogitsWarper(0.9),
        ]
    )
    generator = torch.Generator().manual_seed(3)
    for _ in range(100):
        scores = torch.randn((1, 300), generator=generator) * 4
        history = torch.randint(0, 300, (1, 9), generator=generator)
        ours = scores
        for processor in chain:
            ours = processor(history, ours)
        torch.testing.assert_close(ours, theirs(history, scores), rtol=1e-6, atol=0)


def sampler(seed: int | None = 0, vocab_size: int | None = None, **settings: Any) -> Sampler:
    config = GenerationConfig.sampling(seed=seed, **settings)
    return Sampler.from_config(config, prompt_length=0, vocab_size=vocab_size)


def test_a_seed_makes_it_repeatable() -> None:
    scores = torch.zeros((1, 1000))

    def draw(seed: int | None) -> list[int]:
        sample = sampler(seed)
        return [sample(NO_HISTORY, scores) for _ in range(20)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)


def test_two_samplers_do_not_share_their_randomness() -> None:
    """Nor do they draw from torch's global generator."""
    scores = torch.zeros((1, 1000))
    alone, one, other = sampler(5), sampler(5), sampler(6)
    expected = [alone(NO_HISTORY, scores) for _ in range(20)]
    state = torch.random.get_rng_state()
    mixed = []
    for _ in range(20):
        mixed.append(one(NO_HISTORY, scores))
        other(NO_HISTORY, scores)
    assert mixed == expected
    assert torch.equal(torch.random.get_rng_state(), state)


def test_xtc_draws_from_the_requests_own_numbers() -> None:
    """So that a seed repeats what it does, and nobody else notices."""
    settings: dict[str, Any] = {"xtc_probability": 0.5, "xtc_threshold": 0.1}
    scores = logits(0.4, 0.3, 0.2, 0.1)

    def draw(seed: int) -> list[int]:
        sample = sampler(seed, **settings)
        return [sample(NO_HISTORY, scores) for _ in range(50)]

    state = torch.random.get_rng_state()
    assert draw(5) == draw(5) != draw(6)
    assert {*draw(5)} == {0, 1, 2, 3}
    assert torch.equal(torch.random.get_rng_state(), state)


class _Lines:
    """Knows two line breaks and a space."""

    def encode_ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert text == "\n" and not add_special_tokens
        return [3, 1]

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return {3: " ", 1: "\n"}[ids[0]]


def test_xtc_keeps_line_breaks_and_ends() -> None:
    """Without ``kept`` only the last of four likely tokens would be drawn."""
    tokenizer: Any = _Lines()
    config = GenerationConfig.sampling(seed=1, xtc_probability=1.0)
    sample = Sampler.from_config(config, prompt_length=0, eos_ids={2}, tokenizer=tokenizer)
    scores = logits(0.26, 0.26, 0.25, 0.24)
    assert {sample(NO_HISTORY, scores) for _ in range(100)} == {1, 2, 3}


def test_draws_are_distributed_right() -> None:
    """χ² of 10,000 draws; with 4 degrees of freedom, 18.5 is exceeded once in a thousand."""
    probabilities = [0.5, 0.2, 0.15, 0.1, 0.05]
    draw = sampler(seed=1)
    scores = logits(*probabilities)
    counts = [0] * 5
    for _ in range(10_000):
        counts[draw(NO_HISTORY, scores)] += 1
    expected = [10_000 * p for p in probabilities]
    chi_square = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))
    assert chi_square < 18.5


def test_what_is_cut_is_never_drawn() -> None:
    draw = sampler(seed=2, top_k=2, temperature=2.0)
    scores = logits(0.1, 0.4, 0.2, 0.3)
    drawn = {draw(NO_HISTORY, scores) for _ in range(1000)}
    assert drawn == {1, 3}


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}], ids=["sampled", "greedy"])
def test_ids_past_the_vocabulary_are_never_chosen(settings: dict[str, Any]) -> None:
    """Also if a bias asks for one."""
    draw = sampler(vocab_size=3, logit_bias={4: 1000.0}, **settings)
    scores = torch.tensor([[0.0, 1.0, 0.0, 50.0, 50.0]])
    assert {draw(NO_HISTORY, scores) for _ in range(200)} <= {0, 1, 2}


@pytest.mark.parametrize(
    "settings", [{"top_p": 0.0}, {"top_k": 1}, {"temperature": 0.0}, {"temperature": 1e-45}]
)
def test_greedy_takes_the_best(settings: dict[str, Any]) -> None:
    draw = sampler(**settings)
    assert draw.greedy
    assert [draw(NO_HISTORY, logits(0.3, 0.31, 0.29, 0.1)) for _ in range(50)] == [1] * 50


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.0}, {"top_p": 0.5}, {"top_k": 1}, {"repetition_penalty": 1.5}],
    ids=str,
)
def test_nan_and_infinity_are_errors(settings: dict[str, Any], value: float, place: int) -> None:
    scores = torch.randn(1, 5)
    scores[0, place] = value
    with pytest.raises(ModelError, match="non-finite logits at step 7"):
        sampler(**settings)(torch.tensor([[1, 3]]), scores, step=7)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}], ids=str)
def test_row_58_nothing_left_to_choose_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="non-finite logits at step 0"):
        sampler(**settings)(NO_HISTORY, torch.full((1, 4), -math.inf))


def test_a_processor_that_leaves_nothing_is_an_error() -> None:
    draw = sampler()
    draw.chain = [lambda input_ids, scores: scores * math.nan]
    with pytest.raises(ModelError, match=r"^logits processors: leave non-finite logits at step 0"):
        draw(NO_HISTORY, torch.zeros((1, 4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}], ids=str)
def test_row_103_the_dtype_of_scores_leaves_the_id_as_it_is(
    settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """bfloat16 counts to 256 one by one, float16 to 2048."""
    for wanted in (1001, 517, 2047, 31_999, 200_001):
        scores = torch.full((1, wanted + 1), -100.0)
        scores[0, wanted] = 100.0
        draw = sampler(**settings)
        assert draw(NO_HISTORY, scores.to(dtype)) == wanted  # as a model may have it
        draw.chain = [lambda input_ids, scores: scores.to(dtype), *draw.chain]
        assert draw(NO_HISTORY, scores) == wanted


def test_row_103_the_next_processor_gets_float32() -> None:
    seen = []

    def look(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores.dtype)
        return scores

    draw = sampler()
    draw.chain = [lambda input_ids, scores: scores.to(torch.bfloat16), look]
    draw(NO_HISTORY, torch.zeros((1, 4)))
    assert seen == [torch.float32]


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (None, "None"),
        (np.zeros((1, 4)), "a ndarray"),
        ([[0.0] * 4], "a list"),
        (torch.zeros(4), r"\(4,\) float32 on cpu"),
        (torch.zeros(1, 3), r"\(1, 3\) float32 on cpu"),
        (torch.zeros(2, 4), r"\(2, 4\) float32 on cpu"),
        (torch.zeros((1, 4), dtype=torch.int64), r"\(1, 4\) int64 on cpu"),
        (torch.ones((1, 4), dtype=torch.bool), r"\(1, 4\) bool on cpu"),
        (torch.zeros((1, 4), device="meta"), r"\(1, 4\) float32 on meta"),
    ],
)
def test_row_103_what_is_no_scores_is_an_error_that_names_the_processor(
    returned: object, found: str
) -> None:
    def grammar(input_ids: Tensor, scores: Tensor, mask: object = None) -> Any:
        return returned

    class Grammar:
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
            return returned

    forms: list[Any] = [grammar, Grammar(), partial(grammar, mask=1)]
    for process in forms:
        draw = sampler()
        draw.chain = [process]
        with pytest.raises(
            UsageError, match=rf"^logits processor \S*(?i:grammar): returned {found};"
        ):
            draw(NO_HISTORY, torch.zeros((1, 4)))


def test_minus_infinity_for_some_is_no_error() -> None:
    scores = torch.tensor([[-math.inf, 0.0, -math.inf]])
    some: list[dict[str, Any]] = [{}, {"temperature": 0.0}, {"typical_p": 0.5, "top_p": 0.5}]
    for settings in some:
        assert sampler(**settings)(NO_HISTORY, scores) == 1


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(ModelError) as caught:
        sampler()(NO_HISTORY, torch.full((1, 3), math.nan))
    assert caught.value.exit_code == 3
    assert "float32" in caught.value.remedy
