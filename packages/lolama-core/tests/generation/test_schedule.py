"""Which requests run, in which order, and who waits for whom."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from lolama_core import Generation, Llama, LlamaConfig, RopeScaling, TextGenerator
from lolama_core.generation.engine import Engine
from lolama_core.generation.passes import passes, run_pass
from lolama_core.generation.request_factory import RequestFactory
from lolama_core.generation.schedule import Schedule, TooLittleMemory
from lolama_core.generation.scheduled import Scheduled
from lolama_core.protocols.errors import LolamaError
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory

POSITION = 2 * 1 * 1 * 8 * 4
"""Bytes: keys and values, layers, heads and their width, float32."""


def make_model(**more: Any) -> Llama:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "d_model": 16,
        "num_heads": 2,
        "num_kv_heads": 1,
        "num_layers": 1,
        "hidden_dim": 16,
        "max_seq_len": 1000,
    }
    return Llama(LlamaConfig(**{**sizes, **more})).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Llama:
    return make_model()


class Line:
    """A schedule of prompts that are run as it says, as an engine does."""

    def __init__(self, model: Llama, rows: int = 16, pages: int | None = None) -> None:
        self.model, self.schedule = model, Schedule(rows)
        size = None if pages is None else pages * PAGE * POSITION
        self.memory = self.schedule.memory = RowMemory(model, rows, size)
        self._factory, self._tickets = RequestFactory(model, None), 0

    def add(self, ids: list[int], **settings: Any) -> Scheduled:
        """Let a prompt wait."""
        self._tickets += 1
        config = {"max_new_tokens": 100, "temperature": 0.0, **settings}
        [(request, prompt)] = self._factory.requests([ids], [None], (), config)
        one = Scheduled(self._tickets, request, prompt, prompt.embeds)
        self.schedule.waiting.append(one)
        return one

    @torch.inference_mode()
    def step(self, chunk: int) -> dict[int, int]:
        """Ticket → positions that have run of its prompt. Those that decode get a token each."""
        self.schedule.make_room(self.model)
        parts = self.schedule.next_parts(chunk)
        ran = {one.ticket: count for one, count in parts if one.to_run}
        for together in passes(parts, self.memory):
            logits = run_pass(together, self.model, self.memory)
            for place in self.schedule.ran(together):
                one = together[place][0]
                one.request.step(logits[place])
                one.given += 1
                if one.request.finish_reason is not None:
                    self.schedule.leave(one, keep=True)
                elif len(one.request.tokens) == 1:
                    self.memory.keep(one.row, one.keys)
        return ran

    @property
    def waiting(self) -> list[int]:
        return [one.ticket for one in self.schedule.waiting]

    @property
    def begun(self) -> list[int]:
        return [one.ticket for one in self.schedule.begun]


def text(number: int, length: int) -> list[int]:
    """Texts of different numbers have no page in common."""
    return [number, *(place * 7 % 61 for place in range(length - 1))]


# ------------------------------------------------------------------------------------------------ chunks


def test_the_shortest_prompt_runs_first(model: Llama) -> None:
    line = Line(model)
    for number, length in enumerate((100, 50, 20)):
        line.add(text(number, length))
    assert line.step(30) == {3: 20, 2: 10}
    assert line.step(30) == {2: 30}
    assert line.step(30) == {2: 10, 1: 20}
    assert line.begun == [1, 2, 3] and not line.waiting


def test_of_equal_prompts_the_first_runs_first(model: Llama) -> None:
    line = Line(model)
    for number in range(3):
        line.add(text(number, 20))
    assert [line.step(15) for _ in range(3)] == [{1: 15}, {1: 5, 2: 10}, {2: 10, 3: 5}]


def test_each_fourth_chunk_belongs_to_the_oldest(model: Llama) -> None:
    line = Line(model)
    line.add(text(0, 100))
    for number in range(1, 11):
        line.add(text(number, 10))
    assert [[*line.step(10)] for _ in range(10)] == [[t] for t in (2, 3, 4, 1, 5, 6, 7, 1, 8, 9)]


def test_what_the_oldest_leaves_of_its_chunk_is_for_the_others(model: Llama) -> None:
    line = Line(model)
    line.add(text(0, 45))
    for number in range(1, 7):
        line.add(text(number, 20))
    for _ in range(3):
        line.step(20)
    assert line.step(50) == {1: 45, 5: 5}


def test_a_step_without_prompts_is_no_chunk(model: Llama) -> None:
    """Nor is one whose rows are measured alone."""
    line = Line(model)
    line.add(text(0, 100))
    for number in range(1, 6):
        line.add(text(number, 10))
    seen = []
    for _ in range(4):
        seen.append([*line.step(10)])
        assert line.step(0) == {}
    assert seen == [[2], [3], [4], [1]]


def test_no_prompt_waits_for_ever(model: Llama) -> None:
    """Short ones that come at every step hold a long one up, but not for more than four chunks to its one."""
    line = Line(model, rows=8)
    long = line.add(text(0, 200))
    steps = 0
    while long.to_run:
        line.add([1 + steps % 60, steps // 60, *text(5, 8)], max_new_tokens=1)
        line.step(10)
        steps += 1
        assert steps < 200
    assert steps == 4 * 19 + 1  # its last ten positions are as few as those of any other


def test_prompts_of_any_lengths_run_whole_and_once(model: Llama) -> None:
    """And no more positions in a step than asked for."""
    draw, line = random.Random(2), Line(model)
    lengths = [draw.choice([1, 5, 31, 32, 33, 90]) for _ in range(40)]
    ran = dict.fromkeys(range(1, 41), 0)
    for number, length in enumerate(lengths):
        line.add([draw.randrange(61) for _ in range(length)], max_new_tokens=1 + number % 4)
    while line.waiting or line.begun:
        done = line.step(chunk := draw.randint(0, 40))
        assert sum(done.values()) <= chunk and len(line.begun) <= 16
        for ticket, count in done.items():
            ran[ticket] += count
    assert ran == dict(enumerate(lengths, start=1))
    assert line.memory.used_bytes == 0


def test_a_row_that_changes_as_it_grows_runs_whole() -> None:
    """Each part of it would begin from its first position."""
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=10)
    line = Line(make_model(rope_scaling=scaling))
    for number, length in enumerate((100, 50, 20)):
        line.add(text(number, length))
    assert [line.step(30) for _ in range(2)] == [{3: 20, 2: 50}, {1: 100}]


# ----------------------------------------------------------------------------------------------- sharing


def test_a_prompt_waits_for_what_another_is_about_to_run(model: Llama) -> None:
    line = Line(model)
    line.add(text(0, 100))
    other = line.add([*text(0, 70), *text(1, 10)])
    third = line.add(text(2, 10))  # has nothing in common, so it overtakes
    assert line.step(60) == {3: 10, 1: 50}
    assert (line.waiting, line.begun) == ([2], [1, 3])
    assert line.step(60) == {1: 50}
    assert line.waiting == [2]
    assert line.step(60) == {2: 10}
    assert (other.request.cached_tokens, third.request.cached_tokens) == (70, 0)
    assert not line.waiting


@pytest.mark.parametrize(
    ("first", "own", "common", "waits"),
    [
        (100, 60, 40, True),
        (120, 60, 40, True),
        (121, 60, 40, False),  # it has more than twice as much to run
        (100, 60, 31, False),  # they share no page
        (100, 60, 32, True),
        (33, 33, 33, True),
        (32, 32, 32, False),  # the last position runs in any case
    ],
)
def test_a_prompt_waits_only_if_that_is_worth_it(
    model: Llama, first: int, own: int, common: int, waits: bool
) -> None:
    line = Line(model)
    line.add(text(0, first))
    line.add([*text(0, common), *[60] * (own - common)])
    line.step(1)
    assert line.waiting == ([2] if waits else [])


def test_what_is_known_already_is_not_waited_for(model: Llama) -> None:
    line = Line(model)
    line.add(text(0, 64))
    line.step(100)
    line.add([*text(0, 64), *text(1, 30)])
    line.step(1)
    other = line.add([*text(0, 64), *text(2, 10)])
    assert line.step(40) == {3: 10, 2: 29}
    assert other.request.cached_tokens == 64
    line.add([*text(0, 64), *text(1, 20)])
    line.add([*text(0, 64), *text(3, 64)])
    line.add([*text(0, 64), *text(3, 70)])
    line.step(0)
    assert line.waiting == [6]  # it shares two pages more with the one before it


def test_a_prompt_that_is_read_neither_waits_nor_shares(model: Llama) -> None:
    line = Line(model)
    line.add(text(0, 100))
    reading = line.add(text(0, 90), prompt_logprobs=0)
    assert line.step(200) == {2: 90, 1: 100}
    assert reading.request.cached_tokens == 0
    again = line.add(text(0, 90), prompt_logprobs=0)
    assert line.step(200) == {3: 90}
    assert again.request.cached_tokens == 0
    other = line.add(text(0, 80))
    assert line.step(200) == {4: 1}
    assert other.request.cached_tokens == 79


# ------------------------------------------------------------------------------------------------ memory


def test_no_more_begin_than_rows(model: Llama) -> None:
    line = Line(model, rows=2)
    for number in range(4):
        line.add(text(number, 5), max_new_tokens=2)
    line.step(100)
    assert (line.begun, line.waiting) == ([1, 2], [3, 4])
    line.step(100)
    assert (line.begun, line.waiting) == ([], [3, 4])
    line.step(100)
    assert (line.begun, line.waiting) == ([3, 4], [])


def test_memory_is_given_in_the_order_of_arrival(model: Llama) -> None:
    """A short prompt does not take what a long one before it waits for."""
    line = Line(model, pages=4)
    line.add(text(0, 40), max_new_tokens=2)
    line.add(text(1, 90), max_new_tokens=2)
    line.add(text(2, 5), max_new_tokens=2)
    assert line.step(500) == {1: 40}
    assert line.waiting == [2, 3]
    line.step(500)
    assert line.begun == []
    assert line.step(500) == {2: 90, 3: 5}


def test_a_page_is_left_for_each_that_runs(model: Llama) -> None:
    line = Line(model, pages=4)
    line.add(text(0, 20))
    line.add(text(1, 20))
    line.step(500)
    line.add(text(2, 20))  # it would take one of the two pages that are left for the first two
    line.step(500)
    assert (line.begun, line.waiting) == ([1, 2], [3])


def test_the_youngest_is_put_back_and_comes_first_of_those_that_wait(model: Llama) -> None:
    line = Line(model, pages=4)
    for number in range(3):
        line.add(text(number, 31))
    line.step(500)
    line.add(text(3, 5))
    assert (line.begun, line.waiting) == ([1, 2, 3], [4])
    line.step(500)
    assert (line.begun, line.waiting) == ([1, 2, 3], [4])
    line.step(500)  # each needs a second page
    assert (line.begun, line.waiting) == ([1, 2], [3, 4])
    tokens = [len(one.request.tokens) for one in (*line.schedule.begun, *line.schedule.waiting)]
    assert tokens == [3, 3, 2, 0]


def test_who_is_put_back_waits_behind_those_that_came_before(model: Llama) -> None:
    """Also behind one that waits for what another is about to run."""
    line = Line(model, pages=10)
    line.add(text(0, 31))
    line.add(text(1, 31))
    line.step(500)
    line.add(text(2, 100))
    line.add([*text(2, 60), *text(3, 60)])
    line.add(text(4, 5))
    line.step(1)
    assert (line.begun, line.waiting) == ([1, 2, 3, 5], [4])
    for one in reversed(line.schedule.begun):
        line.schedule.put_back(one, model)
    assert (line.begun, line.waiting) == ([], [1, 2, 3, 4, 5])


def test_what_was_put_back_goes_on_from_what_is_still_known(model: Llama) -> None:
    """And counts none of its own as cached."""
    line = Line(model, pages=8)
    one = line.add(text(0, 40))
    for _ in range(3):
        line.step(500)
    begun = list(one.request.tokens)
    line.schedule.put_back(one, model)
    assert one.to_run == 43
    assert line.step(500) == {1: 1}
    assert (one.request.tokens[:3], one.request.cached_tokens) == (begun, 0)


@pytest.mark.parametrize(
    ("pages", "length", "most", "positions"), [(2, 70, 5, 71), (2, 64, 2, 65), (1, 40, 1, 40)]
)
def test_a_prompt_that_never_fits_is_told(
    model: Llama, pages: int, length: int, most: int, positions: int
) -> None:
    line = Line(model, pages=pages)
    one = line.add(text(0, length), max_new_tokens=most)
    with pytest.raises(TooLittleMemory) as caught:
        line.step(100)
    assert caught.value.one is one
    assert f"{positions} positions do not fit" in str(caught.value.error)


def test_a_text_that_outgrows_the_memory_is_told(model: Llama) -> None:
    line = Line(model, pages=1)
    one = line.add(text(0, 30))
    for _ in range(3):
        line.step(100)
    with pytest.raises(TooLittleMemory) as caught:
        line.step(100)
    assert caught.value.one is one and "33 positions do not fit" in str(caught.value.error)


# ------------------------------------------------------------------------------------------ in an engine


@pytest.mark.parametrize("prefill_chunk", [None, 1, 10, 100])
def test_whatever_the_order_texts_are_those_of_each_alone(
    model: Llama, prefill_chunk: int | None
) -> None:
    """Little memory, prompts that share much, and requests that come, and are canceled, at any step."""
    draw, alone = random.Random(3), TextGenerator(model)
    engine = Engine(model, rows=4, prefill_chunk=prefill_chunk, cache_bytes=12 * PAGE * POSITION)
    expected: dict[int, tuple[int, ...]] = {}
    results: dict[int, Generation[None] | LolamaError] = {}
    common, left = text(0, 80), 16
    while left or engine.busy:
        if left and draw.random() < 0.3:
            left -= 1
            ids = common[: draw.randrange(1, 80)] + text(1, draw.randrange(2, 40))
            settings: dict[str, Any] = {"seed": left, "max_new_tokens": draw.randrange(1, 60)}
            ticket = engine.submit(ids, **settings)
            if draw.random() < 0.2:
                engine.step()
                engine.cancel(ticket)
            else:
                expected[ticket] = alone.generate(ids, **settings).ids
        engine.step()
        results |= engine.collect()
    found = {t: one.ids for t, one in results.items() if isinstance(one, Generation)}
    assert {ticket: found[ticket] for ticket in expected} == expected
    assert engine.used_cache_bytes == 0
