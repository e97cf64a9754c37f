"""How much of a prompt runs beside rows that decode, on a clock of made-up costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from lolama_core import Llama
from lolama_core.generation.engine import Engine
from lolama_core.generation.pass_costs import MOST_POSITIONS, PassCosts

LEAST = 8
AGAIN = 32

Cost = Callable[[int, int], float]
"""Rows that decode, and positions of prompts → seconds."""


def linear(rows: int, positions: int) -> float:
    """A step takes 10 ms and 1 for each row, a position of a prompt a quarter of one."""
    return 0.010 + 0.001 * rows + 0.00025 * positions


def flat(rows: int, positions: int) -> float:
    """As long as fewer than 64 run, weights are all that takes time."""
    return 0.010 + 0.0002 * max(0, rows + positions - 64)


def stairs(rows: int, positions: int) -> float:
    """Products take as long as those of the next multiple of 128."""
    return 0.004 + 0.002 * -(-(rows + positions) // 128)


def chunks(costs: PassCosts, cost: Cost, rows: int, count: int) -> list[int]:
    """The positions that run beside ``rows`` in ``count`` steps, while a prompt without end waits."""
    run = []
    for _ in range(count):
        run.append(costs.chunk(rows))
        costs.note(rows, run[-1], 0, cost(rows, run[-1]))
    return run


def test_without_rows_as_much_runs_as_may() -> None:
    costs = PassCosts()
    assert costs.chunk(0) == MOST_POSITIONS
    costs.note(0, 512, 0, 1.0)
    assert (costs.chunk(0), costs.steps) == (MOST_POSITIONS, {})


def test_a_step_is_measured_first() -> None:
    costs = PassCosts()
    assert chunks(costs, linear, 3, 3) == [0, LEAST, 2 * LEAST]
    assert costs.steps == {3: linear(3, 0)}
    assert costs.position == pytest.approx(0.00025)
    assert costs.chunk(4) == 0  # of another number of rows nothing is known
    assert chunks(costs, linear, 4, 2) == [0, 4 * LEAST]


def test_what_a_prompt_took_alone_is_a_first_measure() -> None:
    """It counts the weights, too, so the chunks that it makes are small."""
    costs = PassCosts()
    costs.note(0, 100, 0, 0.050)
    costs.note(0, 100, 0, 0.500)
    assert costs.position == pytest.approx(0.0005)
    costs.note(2, 0, 0, 0.005)
    assert costs.chunk(2) == 10


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("cost", [linear, flat, stairs])
def test_chunks_come_to_cost_a_step_and_not_more(cost: Cost, rows: int) -> None:
    """Less than twice a step together with it, to a tenth, but for the least; and no much less than that."""
    costs = PassCosts()
    run = chunks(costs, cost, rows, 400)
    step = cost(rows, 0)
    settled = [one for one in run[40:] if one]
    added = [cost(rows, one) - step for one in settled]
    for one, more in zip(settled, added, strict=True):
        assert more <= 2 * step or one == LEAST
    assert sum(added) / len(added) <= 1.1 * step
    assert sum(added) / len(added) >= 0.5 * step
    assert 0 < run.count(0) <= 1 + 400 / AGAIN


def test_chunks_of_linear_costs_are_exact() -> None:
    costs = PassCosts()
    run = chunks(costs, linear, 2, 40)
    most = 48  # 12 ms
    assert run[:5] == [0, 8, 16, 32, most] and set(run[5:33]) == {most}
    assert run[33:] == [0, *[most] * 6]  # after 32 passes with a chunk a step is measured anew


def test_what_is_cheap_grows_until_it_is_not() -> None:
    """Twice as much at a time, since it may be dear from some number on."""
    costs = PassCosts()
    assert chunks(costs, lambda rows, positions: 0.01, 1, 10) == [
        0,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        512,
        512,
    ]


def test_a_chunk_in_the_pass_of_the_rows_may_be_a_single_position() -> None:
    """None costs more than a step, as long as one position does not."""
    costs, run = PassCosts(), []
    for _ in range(40):
        run.append(costs.chunk(2, together=True))
        seconds = 0.010 + 0.004 * run[-1]
        costs.note(2, run[-1], 0, seconds)
        assert costs.planned <= 1
    assert run[:4] == [0, LEAST, 2, 2] and set(run) == {0, LEAST, 2}


def test_what_is_dear_runs_at_least() -> None:
    costs = PassCosts()
    assert set(chunks(costs, lambda rows, positions: 0.001 + positions, 1, 30)) == {0, LEAST}


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_leveled_out(seed: int) -> None:
    """Other programs make passes up to half as long again."""
    draw = random.Random(seed)

    def noisy(rows: int, positions: int) -> float:
        return linear(rows, positions) * draw.uniform(1.0, 1.5)

    costs = PassCosts()
    run = [one for one in chunks(costs, noisy, 4, 600)[40:] if one]
    exact = linear(4, 0) / 0.00025
    assert 0.4 * exact <= sum(run) / len(run) <= 2 * exact


def test_a_step_that_took_long_once_is_forgotten() -> None:
    """As the first one does, which finds nothing ready."""
    costs = PassCosts()
    costs.note(2, 0, 0, 1.0)
    run = chunks(costs, linear, 2, 2 * (AGAIN + 1))
    assert run[-2] == pytest.approx(48, rel=0.1)


def test_steps_of_growing_texts_are_measured_again() -> None:
    costs, passed = PassCosts(), 0

    def growing(rows: int, positions: int) -> float:
        nonlocal passed
        passed += 1
        return 0.010 + 0.0001 * passed + 0.00025 * positions

    run = chunks(costs, growing, 1, 400)
    assert 0.5 * 0.050 / 0.00025 <= run[-1] <= 1.2 * 0.050 / 0.00025


def test_an_engine_runs_what_was_measured(tiny_llama: Callable[..., Llama]) -> None:
    """A long prompt beside a row: its chunks add no more time to a step than one without takes."""
    model = tiny_llama(max_seq_len=1000)
    engine, run = Engine(model, rows=2), list[int]()
    running = engine.submit([1, 2], max_new_tokens=200, ignore_eos=True)
    engine.step()
    note, now = engine.costs.note, [0.0]

    def noted(rows: int, positions: int, drafted: int, seconds: float) -> None:
        run.append(positions)
        note(rows, positions, drafted, linear(rows, positions))

    engine.costs.clock = lambda: now[0]
    engine.costs.note = noted  # type: ignore[method-assign]
    engine.costs.steps.clear()
    engine.costs.position = None
    ticket = engine.submit([1 + place % 90 for place in range(300)], max_new_tokens=2)
    given: list[dict[int, int]] = []
    while ticket not in engine.collect():
        given.append({one: len(emission.ids) for one, emission in engine.step()})
    assert run[:11] == [0, 8, 16, 32, 44, 44, 44, 44, 44, 24, 0]
    assert all(step[running] == 1 for step in given)  # the row is never held up


def test_a_chunk_that_was_asked_for_is_kept_to(tiny_llama: Callable[..., Llama]) -> None:
    engine: Any = Engine(tiny_llama(max_seq_len=1000), rows=2, prefill_chunk=100)
    engine.submit([1, 2], max_new_tokens=50, ignore_eos=True)
    engine.step()
    ticket = engine.submit([1 + place % 90 for place in range(250)], max_new_tokens=1)
    left = []
    for _ in range(3):
        engine.step()
        left.append([one.to_run for one in engine._schedule.half_run])
    assert left == [[150], [50], []]
    assert ticket in engine.collect()


def test_a_token_that_is_tried_ahead_costs_what_it_adds_and_what_guessing_took() -> None:
    costs = PassCosts()
    costs.note(1, 0, 0, 1.0)
    costs.drafting = None  # a draft model has read a long prompt first
    costs.note(1, 0, 2, 3.0)
    assert costs.draft_token(1) is None
    costs.drafting = 0.5
    costs.note(1, 0, 2, 1.5)
    assert costs.draft_token(1) == 0.5
    costs.note(1, 0, 1, 9.0)  # something else held it up
    assert costs.draft_token(1) == 4.5
    costs.note(1, 0, 2, 1.5)
    assert costs.draft_token(1) == 0.5
    costs.note(4, 0, 0, 2.0)
    assert costs.draft_token(4) == 1.0  # a quarter of a step is what a row can save


def test_a_draft_model_reads_as_much_as_a_step_takes_time_for() -> None:
    costs = PassCosts()
    costs.note(2, 0, 0, 1.0)
    assert costs.draft_chunk(2) == LEAST
    costs.note_drafting(0.25, 0)  # nothing was read
    assert (costs.draft_chunk(2), costs.drafting) == (LEAST, 0.25)
    expected = [
        (0.0078125, 16),
        (0.0078125, 32),
        (0.0078125, 64),
        (0.0078125, 128),
        (0.0234375, 64),
    ]
    for seconds, chunk in expected:
        read = costs.draft_chunk(2)
        costs.note_drafting(seconds * read, read)
        assert (costs.draft_chunk(2), costs.drafting) == (chunk, None)
    assert costs.reading == 0.015625
    for _ in range(20):
        costs.note_drafting(9.0, 8)
    assert costs.draft_chunk(2) == LEAST
    assert (costs.chunk(2), costs.position) == (LEAST, None)  # of the model itself it tells nothing
