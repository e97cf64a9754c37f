"""Recorded decoding steps, by running the operators that CUDA would record one by one."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Generation, Llama, LlamaConfig, TextGenerator
from lolama_core.generation.engine import Engine
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import LolamaError
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages
from lolama_core.runtime.recorded_step import RecordedSteps
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

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
    return Llama(LlamaConfig(**{**SHAPE, **shape})).eval().requires_grad_(False)


def ids_of(length: int) -> list[int]:
    return [place * 7 % 60 for place in range(length)]


def begun(memory: RowMemory, ids: list[int], positions: int = 0) -> Row:
    """A row that has run ``ids``."""
    row, model = Row(), memory.model
    assert model is not None
    assert memory.begin(row, [], positions or len(ids) + 1, model.max_seq_len)
    with torch.inference_mode():
        memory.run([row], model.embed(torch.tensor([ids])), [len(ids)])
    return row


@torch.inference_mode()
def decoded(memory: RowMemory, rows: list[Row], tokens: list[int]) -> Tensor:
    return memory.decode(rows, tokens).clone()  # what a step returns is overwritten by the next


def steps_of(memory: RowMemory) -> RecordedSteps:
    assert memory.recorded is not None
    return memory.recorded


def memory_of(model: CausalLM, rows: int = 16) -> RowMemory:
    return RowMemory(model, rows, record=True)


def finished(engine: Engine[None], tickets: list[int]) -> list[Generation[None] | LolamaError]:
    results: dict[int, Generation[None] | LolamaError] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return [results[ticket] for ticket in tickets]


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 5}, {"num_kv_heads": 4}, {"head_dim": 6}])
@pytest.mark.parametrize("length", [1, 4, 5, 30, 63])
def test_a_recorded_step_is_a_step(shape: dict[str, Any], length: int) -> None:
    """Logits are those of the whole text."""
    model = make_model(**shape)
    memory, ids = memory_of(model), ids_of(length)
    row = begun(memory, ids)
    for token in (3, 59, 0, 17):
        ids.append(token)
        logits = decoded(memory, [row], [token])
        torch.testing.assert_close(logits, model(torch.tensor([ids]))[:, -1], atol=1e-5, rtol=1e-5)
        assert memory.held(row) == len(ids)
    assert steps_of(memory).recordings == 1


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 5}, {"num_kv_heads": 4}])
def test_rows_of_any_lengths_and_pages_run_together(shape: dict[str, Any]) -> None:
    """They take pages in turns where few are left, so that those of a row lie in any order."""
    model, draw = make_model(**shape), random.Random(1)
    most = 30 * PAGE * model.make_cache(1, 1).nbytes
    memory, plain = RowMemory(model, max_bytes=most, record=True), RowMemory(model, record=False)
    texts = [ids_of(length) for length in (1, 31, 40, 5, 64, 33, 90)]
    rows, others = ([begun(each, ids) for ids in texts] for each in (memory, plain))
    for _ in range(120):
        some = draw.sample(range(7), draw.randint(1, 7))
        tokens = [draw.randrange(60) for _ in some]
        logits = decoded(memory, [rows[place] for place in some], tokens)
        expected = decoded(plain, [others[place] for place in some], tokens)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert [memory.held(row) for row in rows] == [plain.held(row) for row in others]
    assert any(row.pages != sorted(row.pages) for row in rows)


def test_numbers_of_rows_are_rounded_up_to_powers_of_two() -> None:
    """What fills them up writes to a page of its own, which belongs to no row."""
    model = make_model()
    memory = memory_of(model)
    rows = [begun(memory, ids_of(5)) for _ in range(9)]
    page = PAGE * model.make_cache(1, 1).nbytes
    for count, recordings in ((1, 1), (2, 2), (4, 3), (3, 3), (5, 4), (7, 4), (9, 5)):
        decoded(memory, rows[:count], [1] * count)
        assert steps_of(memory).recordings == recordings
        assert memory.used_bytes == 9 * page
    for row in rows:
        memory.end(row)
    assert memory.used_bytes == 0


def test_twenty_lengths_of_prompt_share_a_recording() -> None:
    model = make_model()
    memory = memory_of(model, rows=1)
    for length in range(1, 1601, 80):
        row = begun(memory, ids_of(length))
        first = decoded(memory, [row], [5])
        memory.end(row)
        again = begun(memory, ids_of(length))
        assert torch.equal(decoded(memory, [again], [5]), first)
        memory.end(again)
    assert steps_of(memory).recordings == 1
    row = begun(memory, ids_of(3000))
    decoded(memory, [row], [5])
    memory.end(row)
    assert steps_of(memory).recordings == 2
    decoded(memory, [begun(memory, ids_of(10))], [5])
    assert steps_of(memory).recordings == 2


def test_a_text_that_grows_past_what_was_recorded_is_recorded_again() -> None:
    """2,048 positions are the least that a recorded step looks at."""
    model = make_model()
    memory, ids = memory_of(model, rows=1), ids_of(2047)
    row = begun(memory, ids)
    for token, recordings in ((3, 1), (4, 2)):
        ids.append(token)
        logits = decoded(memory, [row], [token])
        assert steps_of(memory).recordings == recordings
        torch.testing.assert_close(logits, model(torch.tensor([ids]))[:, -1], atol=1e-5, rtol=1e-5)


def test_pages_that_grow_are_recorded_again() -> None:
    """They lie elsewhere then. (On a CPU they never move by themselves.)"""
    model = make_model()
    pages = Pages(own_cache(model.make_cache(1, 1)), limit=8, first=1)
    steps, rows, texts = RecordedSteps(pages), [Row(), Row()], [ids_of(30), ids_of(9)]
    with torch.inference_mode():
        for row, ids in zip(rows, texts, strict=True):
            cache = PagedCache(pages, [row])
            model.forward_embeds(model.embed(torch.tensor([ids])), cache)
            cache.advance([len(ids)])
        seen = []
        for token in range(40):
            logits = steps(model, rows, [token, token])
            seen.append(steps.recordings)
            for place, ids in enumerate(texts):
                ids.append(token)
                expected = model(torch.tensor([ids]))[0, -1]
                torch.testing.assert_close(logits[place], expected, atol=1e-5, rtol=1e-5)
    # There are 4 pages when the first step runs: two of rows, and one for what fills up their number. The
    # first row takes the fourth. The other asks for a fifth when it comes to its 33rd position.
    assert seen == [1] * 23 + [2] * 17


def test_what_others_left_behind_the_ends_of_rows_is_not_seen() -> None:
    """A NaN passes through any mask that is added."""
    model = make_model()
    memory = memory_of(model)
    memory.open()
    assert memory._pages is not None
    for part in (*memory._pages.keys, *memory._pages.values):
        part.fill_(math.nan)
    texts = [ids_of(3), ids_of(40), ids_of(32)]
    rows = [begun(memory, ids) for ids in texts]
    for _ in range(3):
        logits = decoded(memory, rows, [7] * 3)
        for place, ids in enumerate(texts):
            ids.append(7)
            expected = model(torch.tensor([ids]))[0, -1]
            torch.testing.assert_close(logits[place], expected, atol=1e-5, rtol=1e-5)


def test_a_model_that_changes_is_recorded_again() -> None:
    model = make_model()
    generator, made = TextGenerator(model), list[RowMemory]()

    def lend(positions: int, runner: CausalLM) -> RowMemory:
        idle = generator._idle.pop() if generator._idle else None
        memory = idle if idle is not None and idle.model is runner else memory_of(runner, 1)
        if memory not in made:
            made.append(memory)
        return memory

    generator._lend = lend  # type: ignore[method-assign]
    settings: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0.0}

    def generate() -> None:
        for _ in range(2):
            expected = TextGenerator(model).generate([3, 4], **settings)
            assert generator.generate([3, 4], **settings) == expected

    generate()
    assert [steps_of(memory).recordings for memory in made] == [1]
    model.get_submodule("layers.1.attention").v_proj = torch.nn.Linear(32, 16, bias=False)
    generate()
    assert [steps_of(memory).recordings for memory in made] == [1, 1]
    model.register_forward_pre_hook(lambda *_: None)
    generate()
    assert [steps_of(memory).recordings for memory in made] == [1, 1, 1]
    model.double().float()
    generate()
    assert [steps_of(memory).recordings for memory in made] == [1, 1, 1, 1]


def test_two_at_once_do_not_share() -> None:
    model = make_model()
    memory = memory_of(model)
    one, other = begun(memory, ids_of(4)), begun(memory, ids_of(9))
    expected = decoded(memory, [other], [5])
    memory.end(other)
    other = begun(memory, ids_of(9))
    decoded(memory, [one], [3])
    assert torch.equal(decoded(memory, [other], [5]), expected)
    assert (memory.held(one), memory.held(other)) == (5, 10)


def test_two_streams_of_a_generator_have_a_memory_each() -> None:
    """The one that ends first leaves what it has recorded to the next."""
    model = make_model()
    made: list[RowMemory] = []
    plain, recorded = TextGenerator(model), TextGenerator(model)

    def lend(positions: int, runner: CausalLM) -> RowMemory:
        idle = recorded._idle.pop() if recorded._idle else None
        made.append(memory_of(runner, 1) if idle is None else idle)
        return made[-1]

    recorded._lend = lend  # type: ignore[method-assign]
    settings: dict[str, Any] = {"max_new_tokens": 9, "seed": 1}
    prompts = [ids_of(4), ids_of(9)]
    streams = [iter(recorded.generate_stream(ids, **settings)) for ids in prompts]
    given = [list(pair) for pair in zip(*streams, strict=True)]
    for place, ids in enumerate(prompts):
        expected = plain.generate(ids, **settings).ids
        assert tuple(pair[place] for pair in given) == expected
        assert recorded.generate(ids, **settings).ids == expected
    assert made[0] is not made[1] and made[2] is made[3] in made[:2]
    assert all(memory.used_bytes == memory.idle_bytes == 0 for memory in made)


def test_what_fails_leaves_the_step_as_good_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    memory = memory_of(model)
    row = begun(memory, ids_of(4))
    expected = decoded(memory, [row], [3])
    memory.end(row)
    row = begun(memory, ids_of(4))

    def fail(*arguments: object) -> Tensor:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(Llama, "forward_embeds", fail)
        with pytest.raises(KeyError):
            decoded(memory, [row], [8])
    assert memory.held(row) == 4
    assert torch.equal(decoded(memory, [row], [3]), expected)
    assert steps_of(memory).recordings == 1


def test_a_step_past_what_there_is_is_refused() -> None:
    model = make_model()
    memory = RowMemory(model, max_bytes=PAGE * model.make_cache(1, 1).nbytes, record=True)
    row = begun(memory, ids_of(31))
    decoded(memory, [row], [1])
    assert not memory.has_room([row], [1])
    with pytest.raises(NoPages):
        decoded(memory, [row], [1])
    assert memory.held(row) == 32


def test_rows_that_fill_the_memory_run_recorded_all_the_same() -> None:
    """No row lacks the page that what fills their number up writes to."""
    model = make_model()
    page = PAGE * model.make_cache(1, 1).nbytes
    settings: dict[str, Any] = {"max_new_tokens": 2, "temperature": 0.0}
    prompts = [ids_of(length)[-30:] for length in (31, 40, 50)]
    expected = [TextGenerator(model).generate(ids, **settings).ids for ids in prompts]
    for pages in (2, 3, 4):
        memory_of = partial(RowMemory, rows=3, max_bytes=pages * page, record=True)
        engine = Engine(model, rows=3, memory_of=memory_of)
        results = finished(engine, [engine.submit(ids, **settings) for ids in prompts])
        assert [one.ids for one in results if isinstance(one, Generation)] == expected


def test_a_cache_that_changes_as_it_grows_is_not_recorded() -> None:
    scaling: dict[str, Any] = {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 8}
    config = LlamaConfig.from_json({**SHAPE, "rope_scaling": scaling})
    model = Llama(config).eval().requires_grad_(False)
    memory = memory_of(model)
    row = begun(memory, ids_of(19), 20)
    expected = model(torch.tensor([[*ids_of(19), 3]]))[:, -1]
    torch.testing.assert_close(decoded(memory, [row], [3]), expected, atol=1e-5, rtol=1e-5)
    assert memory.recorded is None


def test_generations_are_the_same_recorded_or_not() -> None:
    model = make_model()
    plain, recorded = TextGenerator(model), TextGenerator(model)
    memory = memory_of(runner_of(model), 1)
    recorded._idle = [memory]
    for seed in range(5):
        settings: dict[str, Any] = {"max_new_tokens": 30, "seed": seed, "temperature": 1.5}
        prompt = list(range(1, 2 + 3 * seed))
        ids = plain.generate(prompt, **settings).ids
        assert recorded.generate(prompt, **settings).ids == ids
        assert recorded._idle == [memory] and memory.used_bytes == 0
        with recorded.generate_stream(prompt, **settings) as stream:
            first = iter(stream)
            assert [next(first), next(first)] == list(ids[:2])  # and dropped
    assert steps_of(memory).recordings == 1


def test_batches_are_the_same_recorded_or_not() -> None:
    """Rows join and leave, and are put back for want of memory."""
    model = make_model()
    page = PAGE * model.make_cache(1, 1).nbytes
    settings: dict[str, Any] = {"max_new_tokens": 40, "seed": 1, "temperature": 1.5}
    prompts = [ids_of(length) for length in (3, 40, 7, 70, 12, 33)]
    expected = [TextGenerator(model).generate(ids, **settings).ids for ids in prompts]
    engine = Engine(
        model, rows=5, memory_of=lambda runner: RowMemory(runner, 5, 9 * page, record=True)
    )
    results = finished(engine, [engine.submit(ids, **settings) for ids in prompts])
    assert [one.ids for one in results if isinstance(one, Generation)] == expected
    assert engine.memory is not None and steps_of(engine.memory).recordings > 1
