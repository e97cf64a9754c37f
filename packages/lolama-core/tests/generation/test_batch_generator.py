from __future__ import annotations

import copy
import gc
import random
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    BatchGenerator,
    Generation,
    GenerationConfig,
    Llama,
    LlamaConfig,
    RopeScaling,
    TextGenerator,
)
from lolama_core.generation.schedule import Schedule
from lolama_core.generation.scheduled import Scheduled
from lolama_core.protocols.errors import LolamaError, ModelError, ResourceError, UsageError
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.runner import Runner


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=61,
        d_model=32,
        num_heads=4,
        num_kv_heads=2,
        num_layers=2,
        hidden_dim=48,
        max_seq_len=600,
    )
    model = Llama(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.25 + (1.0 if "norm" in name else 0.0))
    return model


def workload(count: int, seed: int = 0) -> list[tuple[list[int], GenerationConfig]]:
    draw = random.Random(seed)
    jobs = []
    for _ in range(count):
        ids = [draw.randrange(61) for _ in range(draw.choice([1, 3, 9, 40, 90]))]
        length = draw.randrange(1, 14)
        if draw.random() < 0.5:
            config = GenerationConfig.greedy(max_new_tokens=length)
        else:
            config = GenerationConfig.sampling(max_new_tokens=length, seed=draw.randrange(99))
        jobs.append((ids, config))
    return jobs


def run(batch: BatchGenerator[None]) -> dict[int, Generation[None] | LolamaError]:
    results: dict[int, Generation[None] | LolamaError] = {}
    while batch.busy:
        batch.step()
        results |= batch.collect()
    return results


def without_cached(result: object) -> object:
    return replace(result, cached_tokens=0) if isinstance(result, Generation) else result


@pytest.mark.parametrize("rows", [1, 2, 5, 16])
@pytest.mark.parametrize("prefill_chunk", [7, 64, 512])
def test_every_row_is_as_it_would_be_alone(model: Llama, rows: int, prefill_chunk: int) -> None:
    alone = TextGenerator(model)
    batch = BatchGenerator(model, rows=rows, prefill_chunk=prefill_chunk)
    jobs = workload(25)
    tickets = [batch.submit(ids, config) for ids, config in jobs]
    results = run(batch)
    for ticket, (ids, config) in zip(tickets, jobs, strict=True):
        assert without_cached(results[ticket]) == alone.generate(ids, config)


def test_rows_join_and_leave_while_it_runs(model: Llama) -> None:
    alone, batch = TextGenerator(model), BatchGenerator(model, rows=4, prefill_chunk=16)
    draw, jobs = random.Random(5), workload(40, seed=5)
    expected: dict[int, Generation[None]] = {}
    results: dict[int, Generation[None] | LolamaError] = {}
    streamed: dict[int, list[int]] = {}
    while jobs or batch.busy:
        if jobs and draw.random() < 0.6:
            ids, config = jobs.pop()
            expected[batch.submit(ids, config)] = alone.generate(ids, config)
        for ticket, new in batch.step().items():
            streamed.setdefault(ticket, []).extend(new)
        results |= batch.collect()
    assert {ticket: without_cached(result) for ticket, result in results.items()} == expected
    assert {ticket: tuple(ids) for ticket, ids in streamed.items()} == {
        ticket: result.ids for ticket, result in expected.items()
    }


def test_a_long_prompt_does_not_stall_the_others(model: Llama) -> None:
    batch = BatchGenerator(model, rows=2, prefill_chunk=20)
    short = batch.submit([1, 2, 3], GenerationConfig.greedy(max_new_tokens=30))
    batch.step()
    long = batch.submit(list(range(60)) * 5, GenerationConfig.greedy(max_new_tokens=2))
    for _ in range(14):  # 300 positions in chunks of 20
        news = batch.step()
        assert len(news[short]) == 1
        assert long not in news
    assert long in batch.step()


def test_one_pass_runs_several_short_prompts(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = Llama.forward_embeds

    def counted(self: Llama, embeds: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shapes.append(tuple(embeds.shape[:2]))
        return forward(self, embeds, *args, **kwargs)

    monkeypatch.setattr(Llama, "forward_embeds", counted)
    batch = BatchGenerator(model, rows=8)
    for length in (3, 5, 4):
        batch.submit([1] * length, GenerationConfig.greedy(max_new_tokens=3))
    run(batch)
    assert shapes == [(3, 5), (3, 1), (3, 1)]


def test_canceling(model: Llama) -> None:
    alone, batch = TextGenerator(model), BatchGenerator(model, rows=3, prefill_chunk=20)
    config = GenerationConfig.greedy(max_new_tokens=12)
    prompts = [[1, 2], [3], list(range(55)), [4, 5], [6]]
    running, kept, half_run, waiting, later = (batch.submit(ids, config) for ids in prompts)
    batch.step()
    for ticket in (running, half_run, waiting):
        batch.cancel(ticket)
    batch.cancel(999)
    assert run(batch) == {
        kept: alone.generate([3], config),
        later: alone.generate([6], config),
    }


def test_one_rows_broken_logits_are_no_other_rows_trouble(model: Llama) -> None:
    def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores if input_ids.shape[1] < 8 else scores * float("nan")

    batch = BatchGenerator(model, rows=3)
    config = GenerationConfig.greedy(max_new_tokens=20)
    bad = batch.submit([1, 2, 3], config, logits_processors=[broken])
    good = batch.submit([4, 5], config)
    results = run(batch)
    assert isinstance(results[bad], ModelError)
    assert "non-finite logits at step 5" in str(results[bad])
    assert results[good] == TextGenerator(model).generate([4, 5], config)


def test_no_memory_leaves_what_runs_as_it_was(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BatchGenerator(model, rows=2)
    config = GenerationConfig.greedy(max_new_tokens=10)
    ticket = batch.submit([7, 8], config)
    batch.step()
    forward = Runner.forward_embeds

    def full(self: Runner, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."
        )

    monkeypatch.setattr(Runner, "forward_embeds", full)
    with pytest.raises(ResourceError):
        batch.step()
    monkeypatch.setattr(Runner, "forward_embeds", forward)
    assert run(batch)[ticket] == TextGenerator(model).generate([7, 8], config)


@pytest.mark.parametrize("fails", range(8))
def test_row_251_no_memory_loses_neither_prompts_nor_ids(
    model: Llama, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever pass it is: of running rows, of prompts that join them, of a prompt that is half run."""
    alone, batch = TextGenerator(model), BatchGenerator(model, rows=3, prefill_chunk=16)
    config = GenerationConfig.greedy(max_new_tokens=4)
    prompts = [[7, 8], [9], [3, 4] * 20, [5], [6, 6, 6]]
    expected = [alone.generate(ids, config) for ids in prompts]
    forward, passes = Runner.forward_embeds, iter(range(99))

    def full_once(self: Runner, *args: Any, **kwargs: Any) -> Tensor:
        if next(passes) == fails:
            raise MemoryError
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Runner, "forward_embeds", full_once)
    tickets = [batch.submit(ids, config) for ids in prompts]
    given: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    failures = 0
    while batch.busy:
        try:
            for ticket, ids in batch.step().items():
                given[ticket] += ids
        except ResourceError:
            failures += 1
    results = batch.collect()
    assert [results[ticket] for ticket in tickets] == expected
    assert [tuple(given[ticket]) for ticket in tickets] == [one.ids for one in expected]
    assert failures == 1


def test_bad_prompts_are_refused_at_once(model: Llama) -> None:
    batch = BatchGenerator(model)
    for ids in ([], [61], list(range(60)) * 11):
        with pytest.raises(UsageError):
            batch.submit(ids)
    with pytest.raises(UsageError):
        batch.submit([1], pixel_values=torch.zeros(1))
    assert not batch.busy
    nothing = batch.submit([1], max_new_tokens=0)
    assert batch.collect()[nothing] == Generation(ids=(), text=None, finish_reason="length")


def test_the_cache_grows_for_a_longer_request(model: Llama) -> None:
    batch = BatchGenerator(model, rows=2)
    config = GenerationConfig.greedy(max_new_tokens=8)
    short = batch.submit([1, 2], config)
    batch.step()
    ids = [5, 6, 7] * 150
    long = batch.submit(ids, config)
    results = run(batch)
    alone = TextGenerator(model)
    assert results == {short: alone.generate([1, 2], config), long: alone.generate(ids, config)}


# ----------------------------------------------------------------------------- memory

POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position: keys and values, layers, heads of keys, their width, float32."""


JOBS = [
    ([i % 60 for i in range(length)], config)
    for length in (5, 40, 60, 2, 33, 7, 100)
    for config in (
        GenerationConfig.greedy(max_new_tokens=70),
        GenerationConfig.sampling(max_new_tokens=90, seed=length, repetition_penalty=1.3),
    )
]


@pytest.fixture(scope="module")
def jobs_alone(model: Llama) -> list[Generation[None]]:
    return [TextGenerator(model).generate(ids, config) for ids, config in JOBS]


@pytest.mark.parametrize(("pages", "prefill_chunk"), [(7, 30), (9, 512), (14, 30)])
def test_rows_that_are_put_back_go_on_from_where_they_were(
    model: Llama,
    jobs_alone: list[Generation[None]],
    pages: int,
    prefill_chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Greedy and sampled, with penalties that look back, in a quarter of the memory that all would take."""
    put_back = 0
    original = Schedule.put_back

    def counted(self: Schedule, one: Scheduled, runner: Any) -> None:
        nonlocal put_back
        put_back += 1
        original(self, one, runner)

    monkeypatch.setattr(Schedule, "put_back", counted)
    limit = pages * PAGE * POSITION
    batch = BatchGenerator(model, rows=8, prefill_chunk=prefill_chunk, cache_bytes=limit)
    tickets = [batch.submit(ids, config) for ids, config in JOBS]
    results: dict[int, Generation[None] | LolamaError] = {}
    while batch.busy:
        batch.step()
        assert batch.used_cache_bytes <= limit
        results |= batch.collect()
    assert [without_cached(results[ticket]) for ticket in tickets] == jobs_alone
    assert put_back > 0
    assert batch.used_cache_bytes == 0


def test_a_request_that_does_not_fit_alone_fails_and_no_other(model: Llama) -> None:
    batch = BatchGenerator(model, rows=4, cache_bytes=2 * PAGE * POSITION)
    config = GenerationConfig.greedy(max_new_tokens=5)
    longer = GenerationConfig.greedy(max_new_tokens=90)
    too_long, grows, fits = (
        batch.submit(ids, settings)
        for ids, settings in (([1] * 64, config), ([2, 3], longer), ([4], config))
    )
    results = run(batch)
    assert results[fits] == TextGenerator(model).generate([4], config)
    for ticket, positions in ((too_long, 65), (grows, 65)):
        error = results[ticket]
        assert isinstance(error, ResourceError)
        assert f"{positions} positions do not fit" in str(error) and "cache_bytes" in str(error)


def test_a_request_that_just_fits_runs(model: Llama) -> None:
    """Its prompt fills two pages, and the third is promised to it for what follows."""
    batch = BatchGenerator(model, rows=4, cache_bytes=3 * PAGE * POSITION)
    ticket = batch.submit([1] * 64, GenerationConfig.greedy(max_new_tokens=5))
    alone = TextGenerator(model).generate([1] * 64, GenerationConfig.greedy(max_new_tokens=5))
    assert run(batch)[ticket] == alone


def test_memory_follows_use(model: Llama) -> None:
    """Not what settings allow: a tenth and a page a row above the positions that there are, at every step."""
    batch = BatchGenerator(model, rows=16, prefill_chunk=64)
    draw = random.Random(1)
    prompts = [[1 + draw.randrange(60)] * draw.choice([1, 5, 30, 200]) for _ in range(24)]
    tickets = [batch.submit(ids, max_new_tokens=500 - len(ids), seed=1) for ids in prompts]
    given = dict.fromkeys(tickets, 0)
    for _ in range(150):
        for ticket, ids in batch.step().items():
            given[ticket] += len(ids)
        begun = [one for one in tickets if given[one]]
        positions = sum(len(prompts[tickets.index(one)]) + given[one] for one in begun)
        half_run = 200  # of one that is not through its prompt
        rows = min(16, len(begun) + 1)
        most = 1.1 * (positions + half_run) + rows * PAGE
        assert batch.used_cache_bytes <= most * POSITION
    for ticket in tickets:
        batch.cancel(ticket)
    assert batch.used_cache_bytes == 0 and not batch.busy


@pytest.mark.parametrize("cache_bytes", [0, -1, 1.5, "1", True])
def test_cache_bytes_are_a_number_of_bytes(model: Llama, cache_bytes: Any) -> None:
    with pytest.raises(UsageError, match=r"^cache_bytes: .* whole number, 1 or more"):
        BatchGenerator(model, cache_bytes=cache_bytes)


def dynamic(model: Llama) -> Llama:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=30)
    changed = Llama(replace(model.config, rope_scaling=scaling)).eval()
    changed.load_state_dict(model.state_dict())
    return changed


def test_under_dynamic_rope_rows_run_alone(model: Llama) -> None:
    changed = dynamic(model)
    jobs = workload(12)
    alone = [TextGenerator(changed).generate(ids, config) for ids, config in jobs]
    for cache_bytes in (None, 400 * POSITION):
        batch = BatchGenerator(changed, rows=5, prefill_chunk=50, cache_bytes=cache_bytes)
        tickets = [batch.submit(ids, config) for ids, config in jobs]
        results = run(batch)
        assert [results[ticket] for ticket in tickets] == alone


# ----------------------------------------------------------------------------- what begins alike

SYSTEM = [i * 7 % 61 for i in range(110)]


def positions_run(model: Llama, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The real positions of each pass from now on."""
    counts: list[int] = []
    forward = Runner.forward_embeds

    def counted(
        self: Runner, embeds: Tensor, cache: Any, lengths: Any = None, *args: Any
    ) -> Tensor:
        counts.append(sum(lengths) if lengths else len(embeds) * embeds.shape[1])
        return forward(self, embeds, cache, lengths, *args)

    monkeypatch.setattr(Runner, "forward_embeds", counted)
    return counts


def test_what_many_prompts_begin_with_is_run_once(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitted at once, too: those that come later wait until the first has run it."""
    prompts = [[*SYSTEM, 1 + i, 2] for i in range(12)]
    config = GenerationConfig.greedy(max_new_tokens=6)
    alone = [TextGenerator(model).generate(ids, config) for ids in prompts]
    run_positions = positions_run(model, monkeypatch)
    batch = BatchGenerator(model, rows=5)
    tickets = [batch.submit(ids, config) for ids in prompts]
    results = run(batch)
    assert [without_cached(results[ticket]) for ticket in tickets] == alone
    cached = [getattr(results[ticket], "cached_tokens") for ticket in tickets]  # noqa: B009
    assert cached == [0] + [len(SYSTEM)] * 11
    assert sum(run_positions) == len(SYSTEM) + 12 * (2 + 5)


def test_a_conversation_goes_on_from_its_last_reply(model: Llama) -> None:
    batch = BatchGenerator(model)
    config = GenerationConfig.greedy(max_new_tokens=40)
    ids = [3, 1, 4, 1, 5]
    for turn in range(3):
        ticket = batch.submit(ids, config)
        result = run(batch)[ticket]
        assert isinstance(result, Generation)
        assert result.cached_tokens == (0 if turn == 0 else len(ids) - 3)
        assert without_cached(result) == TextGenerator(model).generate(ids, config)
        ids = [*ids, *result.ids, 9, 9]
    assert batch.used_cache_bytes == 0 and batch.kept_cache_bytes > 0


def test_what_is_kept_makes_room(model: Llama) -> None:
    """For any number of prompts, in the memory that two of them need."""
    limit = 8 * PAGE * POSITION
    batch = BatchGenerator(model, rows=4, cache_bytes=limit)
    config = GenerationConfig.greedy(max_new_tokens=20)
    jobs = [[(i * 5 + k) % 61 for k in range(90)] for i in range(9)]
    for ids in jobs:
        ticket = batch.submit(ids, config)
        assert run(batch)[ticket] == TextGenerator(model).generate(ids, config)
        assert batch.kept_cache_bytes <= limit
    assert batch.kept_cache_bytes >= 5 * PAGE * POSITION


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_without_a_page_for_a_copy_a_prompt_runs_what_it_shares(model: Llama, pages: int) -> None:
    """The page in which two prompts part is then the only one that is left."""
    batch = BatchGenerator(model, cache_bytes=pages * PAGE * POSITION)
    begins = [i % 60 for i in range((pages - 1) * PAGE + 10)]
    config = GenerationConfig.greedy(max_new_tokens=4)
    alone = TextGenerator(model)
    for end in ([50], [51, 52], [53]):
        ticket = batch.submit([*begins, *end], config)
        result = run(batch)[ticket]
        assert without_cached(result) == alone.generate([*begins, *end], config)


def test_a_model_that_changes_runs_everything_again(model: Llama) -> None:
    """Rows in flight as well: they go on as the model is now, and nothing of before is shared."""
    changed = copy.deepcopy(model)
    batch = BatchGenerator(changed, rows=3)
    config = GenerationConfig.greedy(max_new_tokens=20)
    first = batch.submit(SYSTEM, config)
    for _ in range(5):
        batch.step()
    with torch.no_grad():
        changed.get_parameter("layers.1.feed_forward.w_down.weight").mul_(-2)
    second = batch.submit(SYSTEM, config)
    results = run(batch)
    now = TextGenerator(changed)
    assert without_cached(results[second]) == now.generate(SYSTEM, config)
    in_flight = results[first]
    assert isinstance(in_flight, Generation)
    before = TextGenerator(model).generate(SYSTEM, config).ids[:5]
    assert in_flight.ids[:5] == before
    following = GenerationConfig.greedy(max_new_tokens=15)
    assert in_flight.ids[5:] == now.generate([*SYSTEM, *before], following).ids


def test_broken_logits_are_kept_for_nobody(model: Llama) -> None:
    def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * float("nan")

    batch = BatchGenerator(model)
    config = GenerationConfig.greedy(max_new_tokens=3)
    bad = batch.submit(SYSTEM, config, logits_processors=[broken])
    assert isinstance(run(batch)[bad], ModelError)
    assert batch.kept_cache_bytes == 0
    good = batch.submit(SYSTEM, config)
    assert run(batch)[good] == TextGenerator(model).generate(SYSTEM, config)


def test_the_last_token_takes_no_position(model: Llama) -> None:
    batch = BatchGenerator(model, cache_bytes=PAGE * POSITION)
    config = GenerationConfig.greedy(max_new_tokens=1)
    fits, too_long = [*range(PAGE)], [*range(PAGE + 1)]
    first, second = batch.submit(fits, config), batch.submit(too_long, config)
    results = run(batch)
    assert results[first] == TextGenerator(model).generate(fits, config)
    assert isinstance(results[second], ResourceError)


def test_memory_goes_with_the_generator(model: Llama) -> None:
    batch = BatchGenerator(model)
    batch.submit([1, 2, 3], max_new_tokens=2)
    run(batch)
    assert batch.memory is not None
    pages = batch.memory._pages
    assert pages is not None
    watched = weakref.ref(pages)
    gc.disable()
    try:
        del batch, pages
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["plain", "dynamic"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("fails", range(1, 40, 3))
def test_row_269_an_error_of_a_processor_changes_no_text(
    model: Llama, kind: str, error: type[BaseException], fails: int
) -> None:
    """Whichever row it is of, and whether at its first token or later."""
    if kind == "dynamic":
        model = dynamic(model)
    calls = iter(range(1, 999))

    def fails_once(input_ids: Tensor, scores: Tensor) -> Tensor:
        if next(calls) == fails:
            raise error
        return scores

    alone, batch = TextGenerator(model), BatchGenerator(model, rows=4, prefill_chunk=40)
    jobs = [
        ([*range(i, i + 3 + 12 * i)], GenerationConfig.sampling(max_new_tokens=9, seed=i))
        for i in range(5)
    ]
    tickets = [batch.submit(ids, config, logits_processors=[fails_once]) for ids, config in jobs]
    given: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    failures = 0
    while batch.busy:
        try:
            for ticket, new in batch.step().items():
                given[ticket] += new
        except error:
            failures += 1
    assert failures == 1
    results = batch.collect()
    for ticket, (ids, config) in zip(tickets, jobs, strict=True):
        expected = alone.generate(ids, config)
        assert results[ticket] == expected
        assert tuple(given[ticket]) == expected.ids
    assert batch.used_cache_bytes == 0


def test_prompts_of_a_pass_that_failed_give_their_memory_back(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They took what the row that runs needs next, and would have gone on with keys of an earlier model."""
    config = GenerationConfig.greedy(max_new_tokens=8)
    first, second = [*range(PAGE - 3)], [*range(7)]
    batch = BatchGenerator(model, cache_bytes=3 * PAGE * POSITION)
    tickets = [batch.submit(first, config)]
    batch.step()
    forward = Runner.forward_embeds

    def no_prompts(self: Runner, embeds: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits = forward(self, embeds, *args, **kwargs)
        if embeds.shape[1] > 1:
            raise MemoryError
        return logits

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "forward_embeds", no_prompts)
        tickets.append(batch.submit(second, config))
        with pytest.raises(ResourceError):
            batch.step()
    assert batch.used_cache_bytes == 2 * PAGE * POSITION  # what was promised to it stays its own
    results = run(batch)
    alone = TextGenerator(model)
    assert [results[ticket] for ticket in tickets] == [
        alone.generate(ids, config) for ids in (first, second)
    ]
