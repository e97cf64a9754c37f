"""What processors leave of a distribution: by hand, and as slow and obvious statements have it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lolama_core import GenerationConfig, Llama, TextGenerator
from lolama_core.generation import truncation
from lolama_core.protocols import LogitsProcessor
from lolama_core.testing.sampling import LogitsProcessorSuite

MakeLlama = Callable[..., Llama]
NO_HISTORY = torch.zeros((1, 0), dtype=torch.int64)
PROCESSORS: dict[str, LogitsProcessor] = {
    "top_k": partial(truncation.top_k, k=5),
    "top_p": partial(truncation.top_p, p=0.7),
    "top_n_sigma": partial(truncation.top_n_sigma, n=1.0),
    "min_p": partial(truncation.min_p, p=0.2),
    "typical_p": partial(truncation.typical_p, p=0.6),
    "xtc": partial(truncation.xtc, probability=1.0, threshold=0.05, kept=[3], generator=None),
}


class TestProcessors(LogitsProcessorSuite):
    @pytest.fixture(params=PROCESSORS)
    def processor(self, request: pytest.FixtureRequest) -> LogitsProcessor:
        return PROCESSORS[request.param]


def logits(*probabilities: float) -> Tensor:
    """(1, V) scores whose softmax is ``probabilities``."""
    return torch.tensor([probabilities]).log()


def kept(scores: Tensor) -> list[int]:
    """Ids that can still be chosen from (1, V) scores."""
    ids: list[int] = torch.isfinite(scores[0]).nonzero().flatten().tolist()
    return ids


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [3]), (2, [1, 2, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (99, [0, 1, 2, 3])],
)
def test_top_k_by_hand(k: int, expected: list[int]) -> None:
    """Ties with the k-th stay; k past the vocabulary is the whole vocabulary."""
    assert kept(truncation.top_k(NO_HISTORY, logits(0.1, 0.2, 0.2, 0.5), k=k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.001, [3]),
        (0.49, [3]),
        (0.51, [2, 3]),
        (0.79, [2, 3]),
        (0.81, [1, 2, 3]),
        (0.96, [0, 1, 2, 3]),
    ],
)
def test_top_p_by_hand(p: float, expected: list[int]) -> None:
    """The token that reaches p stays."""
    assert kept(truncation.top_p(NO_HISTORY, logits(0.05, 0.15, 0.3, 0.5), p=p)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.05, [0, 1, 2, 3]), (0.25, [1, 2, 3]), (0.35, [2, 3]), (1.0, [3])]
)
def test_min_p_by_hand(p: float, expected: list[int]) -> None:
    """0.05 / 0.5 = 0.1, 0.15 / 0.5 = 0.3, 0.3 / 0.5 = 0.6."""
    assert kept(truncation.min_p(NO_HISTORY, logits(0.05, 0.15, 0.3, 0.5), p=p)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.2, [1]), (0.3, [1, 2]), (0.5, [0, 1, 2]), (0.96, [0, 1, 2, 3])]
)
def test_typical_p_by_hand(p: float, expected: list[int]) -> None:
    """Surprises 0.693, 1.386, 1.609, 2.996 are 0.472, 0.222, 0.445, 1.831 from the entropy 1.165."""
    assert kept(truncation.typical_p(NO_HISTORY, logits(0.5, 0.25, 0.2, 0.05), p=p)) == expected


@pytest.mark.parametrize(
    ("n", "expected"), [(0.3, [4]), (1.0, [3, 4]), (2.0, [2, 3, 4]), (9.0, [1, 2, 3, 4])]
)
def test_top_n_sigma_by_hand(n: float, expected: list[int]) -> None:
    """The mean of 0, 2, 4, 6 is 3 and their deviation the root of 5; the first score is forbidden."""
    scores = torch.tensor([[-math.inf, 0.0, 2.0, 4.0, 6.0]])
    assert kept(truncation.top_n_sigma(NO_HISTORY, scores, n=n)) == expected


def test_top_n_sigma_is_what_the_paper_says_at_every_temperature() -> None:
    generator = torch.Generator().manual_seed(1)
    for temperature in (0.3, 1.0, 4.0):
        for n in (0.5, 1.0, 2.5):
            scores = torch.randn((1, 301), generator=generator) * 3
            values = scores[0].tolist()
            lowest = max(values) - n * statistics.pstdev(values)
            expected = [i for i, value in enumerate(values) if value >= lowest]
            left = truncation.top_n_sigma(NO_HISTORY, scores / temperature, n=n)
            assert kept(left) == expected
            assert torch.equal(left[0, expected], (scores / temperature)[0, expected])


def xtc_as_it_is_told(probabilities: list[float], threshold: float) -> list[int]:
    """Ids that stay: of those at least so probable, the least probable alone."""
    likely = [i for i, p in enumerate(probabilities) if p >= threshold]
    least = min(likely, key=lambda i: probabilities[i], default=None)
    return [i for i in range(len(probabilities)) if i not in likely or i == least]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.1, [0, 1]), (0.15, [0, 1]), (0.25, [0, 1, 2]), (0.4, [0, 1, 2, 3]), (0.5, [0, 1, 2, 3])],
)
def test_xtc_by_hand(threshold: float, expected: list[int]) -> None:
    """Fewer than two likely tokens leave everything as it was."""
    probabilities = [0.05, 0.15, 0.3, 0.5]
    left = truncation.xtc(
        NO_HISTORY,
        logits(*probabilities) + torch.tensor([0.0, 1e-6, 0.0, 0.0]),
        probability=1.0,
        threshold=threshold,
        kept=[],
        generator=None,
    )
    assert kept(left) == expected == xtc_as_it_is_told(probabilities, threshold)


def test_xtc_leaves_a_choice_where_others_have_excluded_tokens() -> None:
    excluded = 0.0  # its score is minus infinity
    scores = logits(excluded, 0.2, 0.3, 0.5)
    left = truncation.xtc(
        NO_HISTORY, scores, probability=1.0, threshold=0.0, kept=[], generator=None
    )
    assert kept(left) == [1]


def test_xtc_is_what_is_told_of_it() -> None:
    generator = torch.Generator().manual_seed(2)
    for threshold in (0.01, 0.05, 0.1, 0.3):
        for _ in range(20):
            scores = torch.randn((1, 60), generator=generator) * 2
            left = truncation.xtc(
                *(NO_HISTORY, scores), probability=1.0, threshold=threshold, kept=[], generator=None
            )
            expected = xtc_as_it_is_told(scores.softmax(-1)[0].tolist(), threshold)
            assert kept(left) == expected
            assert torch.equal(left[0, expected], scores[0, expected])


def test_xtc_keeps_what_it_is_told_to_keep() -> None:
    """It still counts as one of the likely ones; an id past the vocabulary is none."""
    left = truncation.xtc(
        *(NO_HISTORY, logits(0.1, 0.2, 0.3, 0.4)),
        probability=1.0,
        threshold=0.15,
        kept=[3, 99],
        generator=None,
    )
    assert kept(left) == [0, 1, 3]


def test_xtc_happens_as_often_as_it_should() -> None:
    """1,000 rows, 300 expected; the deviation is 14.5."""
    generator = torch.Generator().manual_seed(3)
    scores = logits(0.4, 0.6).expand(1000, 2)
    left = truncation.xtc(
        NO_HISTORY, scores, probability=0.3, threshold=0.1, kept=[], generator=generator
    )
    assert 250 < int(left[:, 1].isinf().sum()) < 350
    assert not left[:, 0].isinf().any()


def test_xtc_of_a_seed_is_the_same_alone_and_beside_others(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=8))
    config = GenerationConfig.sampling(
        xtc_probability=0.5, xtc_threshold=0.05, seed=3, max_new_tokens=20, temperature=4.0
    )
    alone = generator.generate([1, 2], config)
    assert generator.generate_batch([[3], [1, 2], [4, 5]], config)[1] == alone
    without = config.with_settings(xtc_probability=0.0)
    assert generator.generate([1, 2], without) != alone
