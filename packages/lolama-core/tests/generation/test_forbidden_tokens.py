from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
import transformers
from torch import Tensor

from lolama_core import GenerationConfig
from lolama_core.generation import forbidden_tokens, sampling
from lolama_core.protocols import LogitsProcessor
from lolama_core.testing.sampling import LogitsProcessorSuite

VOCABULARY = 30
WORDS = [[3], [7, 8], [8, 8], [7, 8, 9], [8, 7, 8, 9], [9] * 20, [3], [1, 7]]
PROCESSORS: dict[str, LogitsProcessor] = {
    "no_repeat_ngram": partial(forbidden_tokens.no_repeat_ngram, size=2),
    "no_repeat_token": partial(forbidden_tokens.no_repeat_ngram, size=1),
    "bad_words": partial(forbidden_tokens.bad_words, words=forbidden_tokens.by_length(WORDS)),
    "min_new_tokens": partial(
        forbidden_tokens.min_new_tokens, count=5, prompt_length=3, eos_ids={4, 99}
    ),
    "suppress_tokens": partial(forbidden_tokens.suppress_tokens, ids=[0, 5, 5, 1000]),
    "mask_unused": partial(forbidden_tokens.mask_unused, vocab_size=40),
}


class TestProcessors(LogitsProcessorSuite):
    @pytest.fixture(params=PROCESSORS)
    def processor(self, request: pytest.FixtureRequest) -> LogitsProcessor:
        return PROCESSORS[request.param]


def kept(scores: Tensor) -> list[int]:
    """Ids that can still be chosen from (1, V) scores."""
    ids: list[int] = torch.isfinite(scores[0]).nonzero().flatten().tolist()
    return ids


def test_mask_unused_by_hand() -> None:
    history = torch.zeros((1, 0), dtype=torch.int64)
    result = forbidden_tokens.mask_unused(history, torch.zeros((1, 5)), vocab_size=3)
    assert result.tolist() == [[0.0, 0.0, 0.0, -math.inf, -math.inf]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, [0, 4]), (2, [0, 4]), (3, [0, 1, 4]), (4, [0, 1, 2, 3, 4]), (99, [0, 1, 2, 3, 4])],
)
def test_row_107_no_run_twice_by_hand(size: int, expected: list[int]) -> None:
    """After 2 came 1, 2 and 3; after 1 2 came 2 and 3; after 3 1 2 nothing yet."""
    history = torch.tensor([[1, 2, 2, 1, 2, 3, 1, 2]])
    result = forbidden_tokens.no_repeat_ngram(history, torch.zeros((1, 5)), size=size)
    assert kept(result) == expected


def test_row_107_no_end_before_so_many_tokens_by_hand() -> None:
    scores = torch.zeros((1, 4))
    for length, expected in ((2, [1, 3]), (4, [1, 3]), (5, [0, 1, 2, 3])):
        history = torch.ones((1, length), dtype=torch.int64)
        processor = partial(forbidden_tokens.min_new_tokens, count=3, prompt_length=2)
        assert kept(processor(history, scores, eos_ids=[0, 2, 7])) == expected


def histories(seed: int, *, most: int) -> list[tuple[Tensor, Tensor]]:
    """(B, T) ids and (B, V) scores: long and short ones, of many ids and of few that repeat."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in (0, 1, 2, 3, 8, 25, 60):
        for _ in range(20):
            ids = torch.randint(0, most, (3, length), generator=generator)
            found.append((ids, torch.randn((3, VOCABULARY), generator=generator) * 3))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [2, 4, VOCABULARY])
def test_row_107_no_repeat_ngram_equals_transformers(size: int, most: int) -> None:
    ours = partial(forbidden_tokens.no_repeat_ngram, size=size)
    theirs = transformers.NoRepeatNGramLogitsProcessor(size)
    for ids, scores in histories(size, most=most):
        assert torch.equal(ours(ids, scores), theirs(ids, scores))


@pytest.mark.parametrize("seed", range(6))
def test_row_107_bad_words_equal_transformers(seed: int) -> None:
    """Words of one token and of many, one that ends as another does, and end tokens alone or within one."""
    generator = torch.Generator().manual_seed(seed)
    few = 4 if seed < 3 else VOCABULARY
    eos_ids = [1, 3]
    words = [
        torch.randint(0, few, (length,), generator=generator).tolist()
        for length in torch.randint(1, 5, (30,), generator=generator).tolist()
    ]
    words += [[1], [0, 1], [3, 3]]
    config = GenerationConfig.greedy(bad_words_ids=words)
    [ours] = sampling.build_chain(config, prompt_length=0, eos_ids=eos_ids)
    theirs = transformers.NoBadWordsLogitsProcessor(words, eos_ids)
    for ids, scores in histories(seed, most=few):
        assert torch.equal(ours(ids, scores), theirs(ids, scores))


@pytest.mark.parametrize(("prompt_length", "count"), [(0, 1), (3, 5), (8, 17), (60, 1)])
@pytest.mark.parametrize("eos_ids", [[2], [0, 29, 7]])
def test_row_107_min_new_tokens_equal_transformers(
    prompt_length: int, count: int, eos_ids: Sequence[int]
) -> None:
    config = GenerationConfig.greedy(min_new_tokens=count)
    [ours] = sampling.build_chain(config, prompt_length=prompt_length, eos_ids=eos_ids)
    theirs = transformers.MinNewTokensLengthLogitsProcessor(prompt_length, count, list(eos_ids))
    for ids, scores in histories(count, most=VOCABULARY):
        assert torch.equal(ours(ids, scores), theirs(ids, scores))


@pytest.mark.parametrize("suppressed", [[0], [29, 3, 3, 11], [5, VOCABULARY, 10**6]])
def test_row_107_suppress_tokens_equals_transformers(suppressed: list[int]) -> None:
    [ours] = sampling.build_chain(
        GenerationConfig.greedy(suppress_tokens=suppressed), prompt_length=0
    )
    theirs = transformers.SuppressTokensLogitsProcessor(suppressed)
    for ids, scores in histories(1, most=VOCABULARY):
        assert torch.equal(ours(ids, scores), theirs(ids, scores))


def test_row_107_what_forbids_nothing_costs_nothing() -> None:
    config = GenerationConfig.greedy(
        no_repeat_ngram_size=0, bad_words_ids=[[1], [2]], min_new_tokens=4, suppress_tokens=[]
    )
    assert sampling.build_chain(config, prompt_length=0, eos_ids=[1, 2])[:-1] == []
    assert sampling.build_chain(config.with_settings(bad_words_ids=[]), prompt_length=0) == []


def test_row_107_forbidden_tokens_stand_where_transformers_has_them() -> None:
    """A penalty below 1, or a bias, brings back none of them."""
    config = GenerationConfig.greedy(
        repetition_penalty=0.1,
        no_repeat_ngram_size=2,
        bad_words_ids=[[5, 6]],
        min_new_tokens=3,
        suppress_tokens=[7],
        logit_bias={7: 1e6},
    )
    chain = sampling.build_chain(config, prompt_length=1, eos_ids=[2], vocab_size=20)
    names = [processor.func.__name__ for processor in chain]  # type: ignore[attr-defined]
    assert names == [
        "repetition_penalty",
        "no_repeat_ngram",
        "bad_words",
        "min_new_tokens",
        "suppress_tokens",
        "logit_bias",
        "mask_unused",
    ]
    history, scores = [5], torch.randn((1, VOCABULARY))
    for _ in range(12):
        ids, found = torch.tensor([history]), scores
        for process in chain:
            found = process(ids, found)
        history.append(int(found.argmax()))
    assert 7 not in history and 2 not in history[1:4] and (5, 6) not in set(pairwise(history))
    assert len(set(pairwise(history))) == len(history) - 1
