"""DRY against the plain statement of it, token by token."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import GenerationConfig, Llama, TextGenerator, load_tokenizer
from lolama_core.files.checkpoint_reader import open_checkpoint
from lolama_core.generation.dry import Dry
from lolama_core.model.family import LlamaFamily
from lolama_core.protocols import LogitsProcessor
from lolama_core.protocols.errors import UsageError
from lolama_core.testing.sampling import LogitsProcessorSuite

MakeLlama = Callable[..., Llama]


def dry(
    *,
    multiplier: float = 0.8,
    base: float = 1.75,
    allowed: int = 2,
    last_n: int = -1,
    breakers: Collection[int] = (),
) -> Dry:
    return Dry(multiplier, base, allowed, last_n, lambda token_id: token_id in breakers)


class TestDry(LogitsProcessorSuite):
    @pytest.fixture
    def processor(self) -> LogitsProcessor:
        return dry(allowed=1)


def costs(processor: LogitsProcessor, history: Sequence[int], size: int = 9) -> dict[int, float]:
    """Id → what is subtracted from its score."""
    scores = torch.zeros((1, size))
    subtracted = scores - processor(torch.tensor([history]), scores)
    return {i: cost for i, cost in enumerate(subtracted[0].tolist()) if cost}


def as_it_is_told(history: Sequence[int], told: Dry) -> dict[int, float]:
    """For every place, count back from it and from the end."""
    seen = history if told.last_n < 0 else history[len(history) - told.last_n :]
    if told.last_n > len(history):
        seen = history
    found: dict[int, float] = {}
    for place in range(1, len(seen)):
        repeated = 0
        while (
            repeated < place
            and seen[place - 1 - repeated] == seen[-1 - repeated]
            and not told.is_breaker(seen[-1 - repeated])
        ):
            repeated += 1
        token = seen[place]
        if repeated >= told.allowed_length and not told.is_breaker(token):
            cost = told.multiplier * told.base ** (repeated - told.allowed_length)
            found[token] = max(cost, found.get(token, 0.0))
    return found


A, B, C, D, E = range(5)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], {}),
        ([A], {}),
        ([A, B, C, D], {}),
        ([A, B, C, A], {}),  # one token is no repetition yet
        ([A, B, C, A, B], {C: 0.8}),
        ([A, B, C, D, A, B, C], {D: 1.4}),
        ([A, B, C, B, D, A, B], {C: 0.8}),  # the single b before d is too short
        ([A, B, C, E, B, C, D, A, B, C], {E: 1.4, D: 0.8}),
        ([A, B, C, B, C, A, B, C], {B: 1.4, A: 0.8}),
        ([A, A, A, A], {A: 0.8 * 1.75}),
    ],
)
def test_dry_by_hand(history: list[int], expected: dict[int, float]) -> None:
    processor = dry()
    assert costs(processor, history) == pytest.approx(expected)
    assert as_it_is_told(history, processor) == pytest.approx(expected)


def test_a_breaker_ends_a_repetition_and_costs_nothing() -> None:
    history = [A, B, C, D, A, B, C]
    assert costs(dry(breakers=[A]), history) == pytest.approx({D: 0.8})  # b c alone
    assert costs(dry(breakers=[B]), history) == {}
    assert costs(dry(breakers=[C]), history) == {}
    assert costs(dry(breakers=[D]), history) == {}


def test_only_the_last_tokens_are_looked_at() -> None:
    history = [A, B, C, D, A, B, C]
    assert costs(dry(last_n=7), history) == pytest.approx({D: 1.4})
    # The repetition is b c in front of d, without its a.
    assert costs(dry(last_n=6), history) == pytest.approx({D: 0.8})
    assert costs(dry(last_n=5), history) == {}


CASES: list[dict[str, Any]] = [
    {},
    {"allowed": 1, "base": 1.0},
    {"allowed": 3, "breakers": [0]},
    {"last_n": 7},
    {"last_n": 12, "allowed": 1, "breakers": [2]},
    {"multiplier": 0.1, "base": 100.0, "allowed": 1},
    {"last_n": 1000},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dry_equals_the_plain_statement_at_every_step(case: dict[str, Any]) -> None:
    """One `Dry` remembers the history, and a fresh one does not."""
    chance = random.Random(str(case))
    for letters in (1, 2, 3, 6):
        remembers = dry(**case)
        history: list[int] = []
        for _ in range(60):
            history.append(chance.randrange(letters))
            longest = remembers._longest - remembers.allowed_length
            expected = {
                token: min(cost, remembers.multiplier * remembers.base**longest)
                for token, cost in as_it_is_told(history, remembers).items()
            }
            for processor in (remembers, dry(**case)):
                assert costs(processor, history) == pytest.approx(expected, rel=1e-5)


def test_a_history_that_does_not_go_on_is_read_anew() -> None:
    """Cut off, continued otherwise, of another length, of more rows."""
    chance = random.Random(4)
    remembers = dry(allowed=1)
    for _ in range(200):
        history = [chance.randrange(3) for _ in range(chance.randrange(1, 9))]
        assert costs(remembers, history) == pytest.approx(as_it_is_told(history, remembers))
    rows = torch.tensor([[A, B, A], [B, B, B]])
    both = remembers(rows, torch.zeros((2, 9)))
    for row, history in enumerate(rows.tolist()):
        expected = as_it_is_told(history, remembers)
        found = {i: -cost for i, cost in enumerate(both[row].tolist()) if cost}
        assert found == pytest.approx(expected)


def test_a_repetition_of_any_length_has_a_finite_cost() -> None:
    history = [A] * 300
    assert costs(dry(base=10.0), history)[A] == pytest.approx(0.8e38, rel=1e-3)


def test_a_step_reads_the_new_token_alone() -> None:
    asked: list[int] = []

    def is_breaker(token_id: int) -> bool:
        asked.append(token_id)
        return False

    processor = Dry(0.8, 1.75, 2, -1, is_breaker)
    history = [i % 7 for i in range(500)]
    costs(processor, history)
    asked.clear()
    for token_id in (1, 5, 2):
        history.append(token_id)
        costs(processor, history)
    assert asked == [1, 5, 2]


def test_whole_generations_follow_it(tiny_llama: MakeLlama) -> None:
    """Greedy, step by step: the best score once the plain statement's costs are taken off."""
    model = tiny_llama(1, vocab_size=8)
    settings: dict[str, Any] = {"dry_multiplier": 3.0, "dry_allowed_length": 1}
    prompt, count = [5, 6, 7, 5, 6], 12
    config = GenerationConfig.greedy(
        max_new_tokens=count, ignore_eos=True, dry_sequence_breakers=(7,), **settings
    )
    told = dry(multiplier=3.0, allowed=1, breakers=[7])
    history = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            scores: Tensor = model(torch.tensor([history]))[0, -1].clone()
        for token_id, cost in as_it_is_told(history, told).items():
            scores[token_id] -= cost
        history.append(int(scores.argmax()))
    generator = TextGenerator(model)
    plain = GenerationConfig.greedy(max_new_tokens=count, ignore_eos=True)
    assert list(generator.generate(prompt, config).ids) == history[len(prompt) :]
    assert list(generator.generate(prompt, plain).ids) != history[len(prompt) :]
    assert generator.generate_batch([prompt, [1]], config)[0].ids == tuple(history[len(prompt) :])


def test_breakers_that_are_texts_need_a_tokenizer(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama())
    with pytest.raises(UsageError, match=r"^dry_sequence_breakers: are texts.*give token ids"):
        generator.generate([1], dry_multiplier=0.8)
    generator.generate([1], dry_multiplier=0.8, dry_sequence_breakers=[5], max_new_tokens=1)
    generator.generate([1], max_new_tokens=1)  # off, so they do not matter


def test_a_token_whose_text_holds_a_breaker_is_one() -> None:
    tokenizer = load_tokenizer(open_checkpoint(LlamaFamily.builtins["demo"]))
    config = GenerationConfig(dry_multiplier=1.0, dry_sequence_breakers=("\n", "e", 3))
    made = Dry.from_config(config, tokenizer)
    texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.vocab_size)]
    expected = [i for i, text in enumerate(texts) if "\n" in text or "e" in text or i == 3]
    assert [i for i in range(tokenizer.vocab_size) if made.is_breaker(i)] == expected
    assert 3 < len(expected) < tokenizer.vocab_size
