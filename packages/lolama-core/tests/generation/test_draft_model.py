"""What a smaller model guesses, and that it harms no text where it cannot."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Engine, Generation, Llama, PrefixCache, RopeScaling, TextGenerator
from lolama_core.generation.draft_model import DraftModel
from lolama_core.generation.request import Request
from lolama_core.generation.scheduled import Scheduled
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of
from lolama_core.testing.drafts import EagerSpeculation

MakeLlama = Callable[..., Llama]
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position: keys and values, 2 layers, 2 heads, 8 wide, float32."""


class Texts:
    """Prompts of one model, and what another guesses for them."""

    def __init__(self, model: Llama, draft: Llama, max_bytes: int | None = None) -> None:
        self._engine: Any = Engine(model)
        memory_of = partial(RowMemory, max_bytes=max_bytes)
        self.draft, self.model, self.drafter = draft, model, DraftModel(draft, memory_of)
        self.drafter.start(runner_of(model))
        assert self.drafter._memory is not None
        self.memory = self.drafter._memory
        self.read: list[list[int]] = []
        run = self.memory.run

        def counted(rows: Any, embeds: Any, counts: Any, *others: Any) -> Tensor:
            self.read.append([*counts])
            return run(rows, embeds, counts, *others)

        self.memory.run = counted  # type: ignore[method-assign, assignment]

    def add(self, ids: list[int]) -> Scheduled:
        settings: dict[str, Any] = {
            "temperature": 0.0,
            "repetition_penalty": 1.0,
            "max_new_tokens": 500,
        }
        [(request, prompt)] = self._engine.prepare([ids], [None], (), settings)
        return Scheduled(1, request, prompt, prompt.embeds)

    @torch.inference_mode()
    def guess(
        self, rows: Sequence[Scheduled], most: int = 4, worth: int = 8, may_read: int = 512
    ) -> list[list[int]]:
        """What is guessed, and how many positions each pass has read for it, in ``read``."""
        self.read.clear()
        drafts = self.drafter.draft(rows, [most] * len(rows), lambda kind: worth, may_read)
        assert all(draft.kind == 0 for draft in drafts)
        return [[*draft.tokens] for draft in drafts]

    @torch.inference_mode()
    def said(self, one: Scheduled, count: int = 4, below: int | None = None) -> list[int]:
        """The best tokens, each from a forward of the smaller model over all before it."""
        ids = [*one.request.prompt_ids, *one.request.tokens]
        for _ in range(count):
            logits = self.draft(torch.tensor([ids]))[0, -1, :below]
            ids.append(int(logits.argmax()))
        return ids[-count:]


@pytest.fixture
def texts(tiny_llama: MakeLlama) -> Texts:
    return Texts(tiny_llama(max_seq_len=1500), tiny_llama(1, max_seq_len=1500))


def test_what_the_model_would_say_is_guessed(texts: Texts) -> None:
    one, other = texts.add([3, 1, 4]), texts.add([1, 5, 9, 2])
    assert texts.guess([one, other]) == [texts.said(one), texts.said(other)]
    assert texts.read == [[3, 4], [1, 1], [1, 1], [1, 1]]
    assert texts.guess([one, other], most=0) == [[], []]
    assert texts.guess([one, other], worth=0) == [[], []]
    assert texts.read == []


def test_texts_may_try_different_numbers_of_tokens(texts: Texts) -> None:
    rows, counts = [texts.add([place, 7]) for place in range(4)], [1, 4, 0, 2]
    with torch.inference_mode():
        drafts = texts.drafter.draft(rows, counts, lambda kind: 8, 512)
    found = [[*draft.tokens] for draft in drafts]
    assert found == [texts.said(one, n) if n else [] for one, n in zip(rows, counts, strict=True)]


@pytest.mark.parametrize("right", range(5))
def test_only_what_is_new_is_read(right: int, texts: Texts) -> None:
    """Guesses that were chosen are known already."""
    one = texts.add([3, 1, 4])
    [guessed] = texts.guess([one])
    one.request.tokens += [*guessed[:right], 399]
    assert texts.guess([one]) == [texts.said(one)]
    # The last guess was not read.
    assert texts.read[0] == [2 if right == 4 else 1]


def test_a_text_that_was_left_out_is_caught_up_with(texts: Texts) -> None:
    one = texts.add([3, 1, 4])
    texts.guess([one])
    one.request.tokens += [(7 * place) % 400 for place in range(50)]
    assert texts.guess([one]) == [texts.said(one)]
    assert (texts.read[0], texts.drafter.read) == ([50], 50)
    one.request.tokens += [5]
    assert texts.guess([one]) == [texts.said(one)]
    assert (texts.read[0], texts.drafter.read) == ([1], 0)


def test_a_long_prompt_is_read_in_several_steps(texts: Texts) -> None:
    one = texts.add([(7 * place) % 400 for place in range(1100)])
    for _ in range(2):
        assert texts.guess([one]) == [[]]
        assert texts.read == [[512]]
    one.request.tokens += [5, 6]
    assert texts.guess([one]) == [texts.said(one)]
    assert texts.read[0] == [78]


def test_row_328_a_step_reads_so_many_positions_of_all_prompts_together(texts: Texts) -> None:
    """What comes first is read first, and guessed for as soon as it was read."""
    rows = [texts.add([(7 * place + first) % 400 for place in range(100)]) for first in range(3)]
    said = [texts.said(one) for one in rows]
    steps = []
    for _ in range(5):
        guesses = texts.guess(rows, may_read=70)
        steps.append((texts.drafter.read, texts.read[: len(texts.read) - 3 * any(guesses)]))
        found = [bool(guess) for guess in guesses]
        assert guesses == [each if there else [] for each, there in zip(said, found, strict=True)]
        for one, guess, each in zip(rows, guesses, said, strict=True):
            one.request.tokens += guess[:1]
            each[:] = texts.said(one)
    assert steps == [
        (70, [[70]]),
        (70, [[40], [30]]),  # the end of the first, behind the beginning of the second
        (70, [[10], [1, 60]]),
        (70, [[70], [1, 1]]),
        (20, [[1, 1, 20]]),
    ]
    assert texts.guess(rows, may_read=0) == said


def test_row_328_many_long_prompts_hold_up_no_step(tiny_llama: MakeLlama) -> None:
    """Where no time is measured, a step reads 512 positions at most, beside the last tokens of rows."""
    model = tiny_llama(max_seq_len=500)
    set_kernels(model, Kernels())
    speculation = EagerSpeculation(tiny_llama(1, max_seq_len=500))
    engine = Engine(model, prefill_chunk=2000, draft=speculation)
    drafter: Any = speculation._drafter
    read = []
    tickets = [
        engine.submit([first, *([5] * 399)], max_new_tokens=40, ignore_eos=True, seed=1)
        for first in range(4)
    ]
    results: dict[int, Any] = {}
    while engine.busy:
        drafter.read = 0
        engine.step()
        read.append(drafter.read)
        results |= engine.collect()
    assert max(read) == 512
    assert sum(read) >= 4 * 400
    alone = TextGenerator(model, draft="off")
    for first, ticket in enumerate(tickets):
        prompt = [first, *([5] * 399)]
        expected = alone.generate(prompt, max_new_tokens=40, ignore_eos=True, seed=1)
        assert results[ticket] == expected
        assert results[ticket].drafted_tokens > 0


def test_row_328_where_time_is_measured_reading_costs_no_more_than_a_step(
    tiny_llama: MakeLlama,
) -> None:
    class Measured(EagerSpeculation):
        def start(self, runner: CausalLM) -> None:
            super().start(runner)
            self._measures = True

    model = tiny_llama(max_seq_len=500)
    speculation = Measured(tiny_llama(1, max_seq_len=500))
    # It takes a millisecond to read a position, and ten to run a step.
    drafter: Any = speculation._drafter
    speculation.costs.clock = lambda: 0.0
    note = speculation.costs.note_drafting

    def noted(seconds: float, read: int) -> None:
        note(read / 1000, read)

    speculation.costs.note_drafting = noted  # type: ignore[method-assign]
    engine = Engine(model, draft=speculation)
    engine.submit([5] * 100, max_new_tokens=100, ignore_eos=True, seed=1)
    read = []
    while engine.busy:
        speculation.costs.steps = {1: 0.010}
        drafter.read = 0
        engine.step()
        read.append(drafter.read)
    assert [count for count in read if count] == [8, *[10] * 9]


def test_what_texts_begin_with_is_read_once(texts: Texts) -> None:
    beginning = [(7 * place) % 400 for place in range(2 * PAGE)]
    texts.guess([texts.add([*beginning, 1])])
    one = texts.add([*beginning, 2, 3])
    assert texts.guess([one]) == [texts.said(one)]
    assert texts.read[0] == [2]


@pytest.mark.parametrize("size", [300, 401, 450])
def test_models_may_have_different_numbers_of_unused_tokens(
    size: int, tiny_llama: MakeLlama
) -> None:
    texts = Texts(tiny_llama(), tiny_llama(1, vocab_size=size))
    one = texts.add([3, 1, 4])
    [guessed] = texts.guess([one])
    assert guessed == texts.said(one, below=400)
    assert max(guessed) < min(size, 400)
    # Where it does not know an id, it is silent, and so it stays.
    if size < 400:
        one.request.tokens += [size]
        assert texts.guess([one]) == [[]]
        one.request.tokens += [1, 2]
        assert texts.guess([one, texts.add([5])]) == [[], texts.said(texts.add([5]))]
        assert texts.guess([texts.add([399])]) == [[]]


def test_a_text_that_is_longer_than_its_context_has_no_drafts(tiny_llama: MakeLlama) -> None:
    texts = Texts(tiny_llama(max_seq_len=100), tiny_llama(1, max_seq_len=40))
    one = texts.add([5] * 36)
    assert texts.guess([one]) == [texts.said(one)]
    one.request.tokens += [1]
    assert texts.guess([one]) == [[]]
    assert texts.guess([one], most=3) == [texts.said(one, 3)]
    one.request.tokens += [1] * 20
    assert texts.guess([one, texts.add([5] * 90)], most=1) == [[], []]


def test_a_text_that_finds_no_memory_has_no_drafts(tiny_llama: MakeLlama) -> None:
    """Until there is some. Those that have found some go on."""
    texts = Texts(tiny_llama(), tiny_llama(1), max_bytes=2 * PAGE * POSITION)
    first, second = texts.add([1] * 30), texts.add([2] * 40)
    assert texts.guess([first, second]) == [texts.said(first), []]
    assert texts.memory.used_bytes <= 2 * PAGE * POSITION
    first.request.tokens += [1] * 10
    assert texts.guess([first, second]) == [texts.said(first), []]
    del first
    gc.collect()
    assert texts.guess([second]) == [texts.said(second)]


def test_a_text_that_does_not_fit_while_it_is_read_is_silent(tiny_llama: MakeLlama) -> None:
    texts = Texts(tiny_llama(), tiny_llama(1), max_bytes=1)  # a page
    one = texts.add([1] * (PAGE - 2))
    assert texts.guess([one]) == [[]]
    assert texts.guess([one], most=3) == [texts.said(one, 3)]
    one.request.tokens += [1] * 20
    assert texts.guess([one]) == [[]]
    assert texts.memory.used_bytes <= PAGE * POSITION


def test_settings_and_random_numbers_are_those_of_the_text(tiny_llama: MakeLlama) -> None:
    """Guesses draw what the text will draw, and a text draws it again."""
    model = tiny_llama()
    settings: dict[str, Any] = {
        "temperature": 1.3,
        "top_k": 40,
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 2,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.02,
        "ignore_eos": True,
        "seed": 5,
        "max_new_tokens": 40,
    }
    expected = TextGenerator(model, draft="off").generate([1, 2, 3], **settings)
    engine = Engine(model, draft=EagerSpeculation(model))
    ticket = engine.submit([1, 2, 3], **settings)
    result = finish(engine)[ticket]
    assert result == expected
    assert 10 < result.drafted_tokens == result.accepted_tokens


def finish(engine: Engine[Any]) -> dict[int, Any]:
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return results | engine.collect()


# ------------------------------------------------------------------------- it harms no text


def test_row_300_a_draft_model_with_broken_logits_harms_no_text(tiny_llama: MakeLlama) -> None:
    """They are NaN at once, after some tokens, or leave nothing to choose: no draft comes of them."""
    model = tiny_llama()
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, ignore_eos=True)
    assert len(expected.ids) == 62
    for broken in (slice(None), expected.ids[9]):
        draft = tiny_llama(1)
        draft.embed_tokens.weight[broken] = float("nan")
        engine = Engine(model, draft=EagerSpeculation(draft))
        ticket = engine.submit([1, 2], seed=1, ignore_eos=True)
        assert finish(engine)[ticket] == expected
    # Only tokens that the smaller model does not have are left.
    settings: dict[str, Any] = {"suppress_tokens": [*range(300)], "seed": 1, "ignore_eos": True}
    engine = Engine(model, draft=EagerSpeculation(tiny_llama(1, vocab_size=300)))
    ticket = engine.submit([1, 2], **settings)
    expected = TextGenerator(model, draft="off").generate([1, 2], **settings)
    assert finish(engine)[ticket] == expected


def test_a_guess_that_fails_ends_the_draft_of_its_text_alone(texts: Texts) -> None:
    one, other = texts.add([3, 1, 4]), texts.add([1, 5, 9])
    said = texts.said(one)
    texts.draft.embed_tokens.weight[said[1]] = float("nan")
    texts.drafter.start(texts._engine._model)
    assert texts.guess([one, other]) == [said[:2], texts.said(other)]
    other.request.tokens += [2]
    assert texts.guess([texts.add([said[1]]), other]) == [[], texts.said(other)]


def test_pictures_are_not_guessed_behind(texts: Texts) -> None:
    one = texts.add([3, 1, 4])
    one.request.has_inputs = True
    assert texts.guess([one]) == [[]]


def test_row_329_a_model_under_dynamic_rope_makes_no_drafts(tiny_llama: MakeLlama) -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=40)
    dynamic = tiny_llama(rope_scaling=scaling)
    factors = (1.0,) * (dynamic.config.head_dim // 2)
    longrope = tiny_llama(
        rope_scaling=replace(scaling, type="longrope", short_factor=factors, long_factor=factors)
    )
    for make in (Engine, TextGenerator):  # before anything has run
        for draft, name in ((dynamic, "dynamic RoPE"), (longrope, "LongRoPE")):
            reason = rf"draft: changes what it holds of a text as that grows \({name}\)"
            with pytest.raises(UsageError, match=reason) as refused:
                make(tiny_llama(), draft=draft)
            assert "\n" not in str(refused.value)
    # It may have some.
    expected = TextGenerator(dynamic, draft="off").generate([1, 2], seed=1)
    found = TextGenerator(dynamic, draft=tiny_llama()).generate([1, 2], seed=1)
    assert (found, found.drafted_tokens) == (expected, 0)


def test_a_draft_model_that_is_changed_is_looked_at_again(tiny_llama: MakeLlama) -> None:
    model, draft = tiny_llama(max_seq_len=200), tiny_llama(1, max_seq_len=200)
    expected = TextGenerator(model, draft="off").generate([1, 2], seed=1, ignore_eos=True)
    engine = Engine(model, draft=EagerSpeculation(draft))
    tickets = [engine.submit([1, 2], seed=1, ignore_eos=True)]
    for _ in range(9):
        engine.step()
    draft.load_state_dict(model.state_dict())
    tickets.append(engine.submit([1, 2], seed=1, ignore_eos=True))  # a look is taken
    results = finish(engine)
    assert [results[ticket] for ticket in tickets] == [expected, expected]
    assert results[2].accepted_tokens == results[2].drafted_tokens > 50


# --------------------------------------------------------------------------------- its memory


def used(engine: Engine[Any]) -> int:
    drafter: Any = engine.speculation._drafter
    return 0 if drafter._memory is None else int(drafter._memory.used_bytes)


@pytest.mark.parametrize("pages", [0, 3, 100])
def test_row_330_what_a_draft_model_keeps_counts_under_the_limit_of_a_prefix_cache(
    pages: int, tiny_llama: MakeLlama
) -> None:
    """A page of either model takes as much here."""
    cache = PrefixCache(pages * PAGE * POSITION)
    generator = TextGenerator(
        tiny_llama(max_seq_len=200), draft=tiny_llama(1, max_seq_len=200), prefix_cache=cache
    )
    drafter: Any = generator._speculation._drafter
    for first in range(4):
        generator.generate([first] * 40, max_new_tokens=40, ignore_eos=True, seed=1)
    gc.collect()
    own = generator._engine()
    own.submit([1], max_new_tokens=1)
    own.step()
    kept = own.kept_cache_bytes, drafter._memory.idle_bytes
    assert drafter._memory.used_bytes == 0
    assert cache.nbytes == sum(kept) <= cache.max_bytes
    assert len(cache) == own.memory.texts  # type: ignore[union-attr]
    if pages == 100:
        assert min(kept) > 0
    cache.clear()
    assert drafter._memory.idle_bytes == 0


def test_row_366_what_drafts_have_read_leaves_room_for_what_the_model_has(
    tiny_llama: MakeLlama,
) -> None:
    """A page of either model takes as much here, so each has half of the twelve."""
    cache = PrefixCache(12 * PAGE * POSITION)
    generator = TextGenerator(
        tiny_llama(max_seq_len=200), draft=tiny_llama(1, max_seq_len=200), prefix_cache=cache
    )
    for first in range(6):
        generator.generate([first] * 150, max_new_tokens=40, ignore_eos=True, seed=1)
    gc.collect()
    drafter: Any = generator._speculation._drafter
    assert 0 < drafter._memory.idle_bytes <= cache.max_bytes // 2
    assert cache.nbytes <= cache.max_bytes
    assert generator.generate([5] * 150, max_new_tokens=1, seed=1).cached_tokens == 149


def test_row_330_one_model_may_generate_and_make_drafts_with_a_prefix_cache(
    tiny_llama: MakeLlama,
) -> None:
    """Even if two models guess for each other, in two threads: neither waits for the other's turn."""
    models = [tiny_llama(seed, max_seq_len=200) for seed in range(2)]
    cache = PrefixCache(1 << 20)
    generators = [
        TextGenerator(model, draft=draft, prefix_cache=cache)
        for model, draft in (models, models[::-1])
    ]
    expected = [
        [TextGenerator(model, draft="off").generate([n] * 20, seed=n) for n in range(8)]
        for model in models
    ]

    def generate(place: int) -> list[Any]:
        return [generators[place].generate([n] * 20, seed=n) for n in range(8)]

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(generate, place) for place in range(2)]
        texts = [[one.ids for one in each.result(60)] for each in found]
    assert texts == [[one.ids for one in each] for each in expected]


def test_a_limit_of_bytes_is_shared_by_what_positions_take(tiny_llama: MakeLlama) -> None:
    """In int8 a position of a model takes 2 · 2 · 2 vectors of 8 codes and a scale of two bytes."""
    model, draft = tiny_llama(), tiny_llama(1)
    dtypes: dict[Any, int] = {None: POSITION, "int8": 2 * 2 * 2 * (8 + 2)}
    for dtype, own in dtypes.items():
        engine = Engine(model, cache_bytes=100_000, cache_dtype=dtype, draft=draft)
        drafter: Any = engine.speculation._drafter
        for _ in range(2):
            engine.submit([1], max_new_tokens=5, ignore_eos=True)
            engine.step()
        assert engine.memory is not None
        most = drafter._memory._max_bytes
        assert most == 100_000 * POSITION // (own + POSITION)
        assert engine.memory._max_bytes == 100_000 - most


@pytest.mark.parametrize("way", ["end", "cancel", "error"])
def test_memory_is_given_back_when_a_text_ends(way: str, tiny_llama: MakeLlama) -> None:
    engine = Engine(tiny_llama(), draft=EagerSpeculation(tiny_llama(1)))

    def fail(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * float("nan") if input_ids.shape[1] > 20 else scores

    processors = [fail] if way == "error" else []
    tickets = [
        engine.submit([place], seed=1, ignore_eos=True, logits_processors=processors)
        for place in range(3)
    ]
    for _ in range(5):
        engine.step()
    assert used(engine) >= 3 * PAGE * POSITION
    if way == "cancel":
        for ticket in tickets:
            engine.cancel(ticket)
    results = finish(engine)
    gc.collect()
    assert used(engine) == 0
    kinds = [isinstance(result, Generation) for result in results.values()]
    assert kinds == {"end": [True] * 3, "cancel": [], "error": [False] * 3}[way]


def test_memory_is_given_back_when_an_engine_is_dropped(tiny_llama: MakeLlama) -> None:
    """And when a stream is: the next text may need it."""
    model, speculation = tiny_llama(), EagerSpeculation(tiny_llama(1))
    engine = Engine(model, draft=speculation)
    engine.submit([1], seed=1, ignore_eos=True)
    for _ in range(5):
        engine.step()
    drafter: Any = speculation._drafter
    assert drafter._memory.used_bytes > 0
    del engine
    gc.collect()
    assert drafter._memory.used_bytes == 0
    generator = TextGenerator(model)
    generator._speculation = speculation
    stream = generator.generate_stream([1], seed=1, ignore_eos=True)
    ids = iter(stream)
    while not drafter._memory.used_bytes:
        next(ids)
    del stream, ids
    gc.collect()
    assert drafter._memory.used_bytes == 0


def test_streams_of_one_generator_may_take_turns(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    alone = TextGenerator(model, draft="off")
    expected = [alone.generate([place], seed=place).ids for place in range(5)]
    generator = TextGenerator(model)
    generator._speculation = EagerSpeculation(tiny_llama(1))
    streams = [generator.generate_stream([place], seed=place) for place in range(5)]
    found: list[list[int]] = [[] for _ in streams]
    going = {place: iter(stream) for place, stream in enumerate(streams)}
    while going:
        for place in [*going]:
            token = next(going[place], None)
            if token is None:
                del going[place]
            else:
                found[place].append(int(token))
    assert [tuple(ids) for ids in found] == expected


def test_ctrl_c_within_a_pass_leaves_no_page_behind(
    texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = texts.add([1] * 40)

    def stop(self: Request, logits: Tensor, ahead: Sequence[int]) -> int:
        if ahead:
            raise KeyboardInterrupt
        return guess(self, logits, ahead)

    guess = Request.guess
    for _ in range(20):
        monkeypatch.setattr(Request, "guess", stop)
        with pytest.raises(KeyboardInterrupt):
            texts.guess([one])
        monkeypatch.setattr(Request, "guess", guess)
        assert texts.guess([one]) == [[]]  # there is no token to go on from
        one.request.tokens += [2]
        assert texts.guess([one]) == [texts.said(one)]
        one.request.tokens += [2]
        assert texts.memory.used_bytes <= 3 * PAGE * POSITION
    del one
    gc.collect()
    assert texts.memory.used_bytes == 0


def test_a_pass_that_ctrl_c_has_broken_off_is_begun_anew(
    texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the row holds then is not known."""
    one, run = texts.add([1] * 40), texts.memory.run

    def stop(*arguments: Any) -> Tensor:
        run(*arguments)
        raise KeyboardInterrupt

    for _ in range(20):
        monkeypatch.setattr(texts.memory, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            texts.guess([one])
        monkeypatch.setattr(texts.memory, "run", run)
        one.request.tokens += [2]
        assert texts.memory.used_bytes <= 3 * PAGE * POSITION
    assert texts.guess([one]) == [texts.said(one)]
    del one
    gc.collect()
    assert texts.memory.used_bytes == 0
