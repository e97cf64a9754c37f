"""What followed when a text last ended like this, as a draft."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from lolama_core import Engine, Llama
from lolama_core.generation.prompt_lookup import PromptLookup
from lolama_core.generation.scheduled import NO_DRAFT, Draft, Scheduled


class Texts:
    """Prompts as a drafter sees them."""

    def __init__(self, model: Llama) -> None:
        self._engine: Any = Engine(model)
        self.lookup, self.kinds = PromptLookup(), list[int]()

    def add(self, ids: list[int]) -> Scheduled:
        [(request, prompt)] = self._engine.prepare([ids], [None], (), {"max_new_tokens": 90})
        return Scheduled(1, request, prompt, prompt.embeds)

    def draft(self, one: Scheduled, most: int = 8, worth: int = 8) -> Draft:
        def worth_of(kind: int) -> int:
            self.kinds.append(kind)
            return worth

        [draft] = self.lookup.draft([one], [most], worth_of, 0)
        return draft


@pytest.fixture
def texts(tiny_llama: Callable[..., Llama]) -> Texts:
    return Texts(tiny_llama(max_seq_len=200))


@pytest.mark.parametrize(
    ("ids", "tokens", "kind"),
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6, 1, 2, 3, 4, 5], 3),
        ([9, 1, 2, 3, 4, 9, 1, 2, 3], [4, 9, 1, 2, 3, 4, 9, 1], 4),
        # It begins with what it ends with.
        ([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2], 3),
        # The last time counts.
        ([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], [5, 1, 2, 3, 5, 1, 2, 3], 3),
        # More than eight tokens are not compared.
        ([*range(20), 50, *range(20)], [50, *range(7)], 8),
        # A token again and again goes on for ever, and so do two.
        ([7, 7, 7, 7], [7] * 8, 3),
        ([7, 7, 7, 7, 7], [7] * 8, 4),
        ([8, 6, 8, 6, 8], [6, 8, 6, 8, 6, 8, 6, 8], 3),
    ],
)
def test_what_followed_is_guessed(
    ids: list[int], tokens: list[int], kind: int, texts: Texts
) -> None:
    one = texts.add(ids)
    assert texts.draft(one) == Draft(tokens, kind)
    assert texts.kinds == [kind]
    for most, worth in ((1, 8), (3, 8), (8, 3), (8, 0)):
        assert texts.draft(one, most, worth).tokens == tokens[: min(most, worth)]


@pytest.mark.parametrize("ids", [[1], [1, 1], [1, 1, 1], [1, 2, 3, 4], [1, 2, 9, 1, 2]])
def test_nothing_is_guessed_where_no_three_tokens_came_before(ids: list[int], texts: Texts) -> None:
    assert texts.draft(texts.add(ids)) == NO_DRAFT
    assert texts.kinds == []


def test_nothing_is_guessed_where_nothing_may_come(texts: Texts) -> None:
    one = texts.add([7] * 9)
    assert texts.draft(one, most=0) == NO_DRAFT
    assert texts.draft(one, most=-1) == NO_DRAFT


def test_tokens_of_a_text_are_looked_up_as_they_come(texts: Texts) -> None:
    """One by one, several at once, and whether or not somebody looked between them."""
    one = texts.add([5])
    assert texts.draft(one) == NO_DRAFT
    one.request.tokens += [6]
    assert texts.draft(one) == NO_DRAFT
    one.request.tokens += [7, 8, 9, 5, 6, 7]
    assert texts.draft(one, most=2) == Draft([8, 9], 3)
    one.request.tokens += [8]
    assert texts.draft(one, most=2) == Draft([9, 5], 4)
    one.request.tokens += [5, 6, 7]
    assert texts.draft(one, most=3) == Draft([8, 5, 6], 3)


def test_texts_are_looked_up_apart(texts: Texts) -> None:
    """One beside another, and one after another."""
    first, second = texts.add([1, 2, 3, 4, 1, 2, 3]), texts.add([1, 2, 3, 5, 1, 2, 3])
    drafts = texts.lookup.draft([first, second], [1, 1], lambda kind: 8, 0)
    assert drafts == [Draft([4], 3), Draft([5], 3)]
    assert texts.draft(texts.add([9, 1, 2, 3])) == NO_DRAFT


def test_a_text_that_has_ended_is_forgotten(texts: Texts) -> None:
    one = texts.add([7] * 9)
    texts.draft(one)
    assert len(texts.lookup._seen) == 1
    del one
    gc.collect()
    assert len(texts.lookup._seen) == 0
