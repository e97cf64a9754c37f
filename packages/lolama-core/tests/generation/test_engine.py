"""Each text of an engine is the one that it would be alone, whatever runs, comes and goes beside it.

``LOLAMA_FUZZ_CASES`` sets the number of prompts. With 200 or more, every number of rows meets every chunk.
"""

from __future__ import annotations

import copy
import gc
import itertools
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import (
    Engine,
    Generation,
    GenerationConfig,
    Llama,
    LlamaConfig,
    PrefixCache,
    TextGenerator,
    Tokenizer,
)
from lolama_core.generation.logprobs import TokenLogprobs
from lolama_core.generation.request import Emission
from lolama_core.generation.schedule import Schedule, Scheduled
from lolama_core.protocols import LogitsProcessor
from lolama_core.protocols.errors import ResourceError, UsageError
from lolama_core.protocols.types import GenerationDefaults, Prompt
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

PROMPTS = int(os.environ.get("LOLAMA_FUZZ_CASES", "20"))
VOCABULARY = 406
CONTEXT = 160
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position: keys and values, 2 layers, 2 heads, 8 wide, float32."""

NEAR_TIE = 1e-5
"""Two tokens whose scores differ by less may change places where sums are taken in another order."""

WAYS = [*itertools.product((1, 2, 5, 16, 64), (None, 1, 7, 64), (False, True))]
FEW = [
    (1, 64, False),
    (2, 7, True),
    (5, None, True),
    (16, 1, False),
    (16, 64, True),
    (64, None, False),
]


@dataclass(frozen=True)
class Job:
    """What is asked of an engine; processors and constraints with a state are made anew for each run."""

    ids: list[int]
    config: GenerationConfig
    processors: Callable[[], list[LogitsProcessor]]
    constrained: bool
    n: int

    def prepare(self, engine: Engine[str]) -> list[Any]:
        return engine.prepare(
            [self.ids],
            [self.config],
            self.processors(),
            n=self.n,
            constraint=Thirds() if self.constrained else None,
        )


@dataclass(frozen=True)
class Expected:
    """What a text is when each token is chosen from a forward over all that stands before it."""

    result: Generation[Any]
    gaps: list[float]


class Thirds:
    """A `Constraint`: each token has the remainder by 3 that follows from those before it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def mask(self) -> Tensor:
        return torch.arange(VOCABULARY) % 3 == sum(self.tokens) % 3

    def accept(self, token: int) -> None:
        self.tokens.append(token)

    def rollback(self, count: int) -> None:
        del self.tokens[len(self.tokens) - count :]


def none() -> list[LogitsProcessor]:
    return []


def in_place() -> list[LogitsProcessor]:
    return [not_the_last]


def counting() -> list[LogitsProcessor]:
    return [EachThird()]


def not_the_last(input_ids: Tensor, scores: Tensor) -> Tensor:
    scores[:, input_ids[0, -1]] -= 3
    return scores


class EachThird:
    """A processor that counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        return scores.roll(1, dims=-1) if self.calls % 3 == 0 else scores


@pytest.fixture(scope="module")
def model() -> Llama:
    """Its logits are spread out enough that no two ids are nearly as good."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        num_heads=4,
        num_kv_heads=2,
        num_layers=2,
        hidden_dim=64,
        max_seq_len=CONTEXT,
    )
    model = Llama(config).eval().requires_grad_(False)
    model.lm_head.weight.mul_(8)
    model.generation_defaults = GenerationDefaults(eos_ids=frozenset(range(0, 400, 40)))
    return model


def make_jobs(count: int, seed: int) -> list[Job]:
    draw = random.Random(seed)

    def some(length: int) -> list[int]:
        return [draw.randrange(400) for _ in range(length)]

    beginnings = [some(length) for length in (9, 32, 45, 100)]
    jobs: list[Job] = []
    for _ in range(count):
        ids = some(draw.choice([1, 2, 8, 31, 33]))
        chance = draw.random()
        if chance < 0.6:
            ids = draw.choice(beginnings) + ids
        elif jobs and chance < 0.7:
            ids = draw.choice(jobs).ids
        elif chance < 0.75:
            ids = some(draw.choice([CONTEXT - 3, CONTEXT - 1, CONTEXT]))
        length = draw.choice([0, 1, 1, 2, 2, 3, 5, 9, 12, 20, 70])
        settings: dict[str, Any] = {"max_new_tokens": length, "ignore_eos": length > 20}
        if draw.random() < 0.5:
            config = GenerationConfig.greedy(**settings)
        else:
            config = GenerationConfig.sampling(**settings, seed=draw.randrange(99))
            choices: list[dict[str, Any]] = [
                {"top_k": 9, "temperature": 0.7},
                {"min_p": 0.05},
                {"xtc_probability": 0.5, "xtc_threshold": 0.02},
            ]
            config = config.with_settings(**draw.choice(choices))
        others: list[dict[str, Any]] = [
            {"stop": ("e", " th")},
            {"stop": ("zzz",), "ignore_eos": True},
            {"logprobs": 2},
            {"prompt_logprobs": 1},
            {"prompt_logprobs": 0, "logprobs": 0},
            {"repetition_penalty": 1.4, "presence_penalty": 0.5},
            {"min_new_tokens": 4, "no_repeat_ngram_size": 2},
            {},
        ]
        config = config.with_settings(**draw.choice(others)).with_settings(**draw.choice(others))
        processors = draw.choice([none, none, in_place, counting])
        constrained = draw.random() < 0.15
        # Neither a constraint nor a processor with a state serves several texts.
        alone = constrained or processors is counting
        n = 3 if not alone and draw.random() < 0.1 else 1
        jobs.append(Job(ids, config, processors, constrained, n))
    return jobs


@torch.inference_mode()
def slowly(model: Llama, tokenizer: Tokenizer, job: Job) -> list[Expected]:
    """The texts of a job, each token from a forward of the model as it is written over all before it."""
    expected = []
    for request, _ in job.prepare(Engine(model, tokenizer)):
        gaps: list[float] = []
        sampler = request._sampler

        def record(input_ids: Tensor, scores: Tensor, sampler=sampler, gaps=gaps) -> Tensor:  # type: ignore[no-untyped-def]
            known = scores.log_softmax(-1)
            if not sampler.greedy:
                twin = torch.Generator()
                twin.set_state(sampler.generator.get_state())
                clocks = torch.empty_like(scores).exponential_(generator=twin)
                known = known - clocks.log()
            first, second = known[0].topk(2).values.tolist()
            gaps.append(first - second)
            return scores

        sampler.chain = [*sampler.chain, record]
        if not request.limit:
            request.end_without_tokens()
        while request.finish_reason is None:
            logits = model(torch.tensor([[*job.ids, *request.tokens]]))
            request.step(logits[:, -1])
        result = replace(request.result(), prompt_logprobs=None)
        count = job.config.prompt_logprobs
        if count is not None:
            logprobs = model(torch.tensor([job.ids]))[0].log_softmax(-1)
            result = replace(
                result,
                prompt_logprobs=tuple(
                    TokenLogprobs(
                        token,
                        row[token].item(),
                        tuple((int(i), row[i].item()) for i in row.topk(count).indices),
                    )
                    for row, token in zip(logprobs, job.ids[1:], strict=False)
                ),
            )
        expected.append(Expected(result, gaps))
    return expected


@pytest.fixture(scope="module")
def expected(model: Llama, byte_level: Tokenizer) -> list[list[Expected]]:
    """What each job leads to alone."""
    return [slowly(model, byte_level, job) for job in make_jobs(PROMPTS, 0)]


def check_logprobs(
    found: Sequence[TokenLogprobs] | None, expected: Sequence[TokenLogprobs] | None
) -> None:
    if expected is None or found is None:
        assert found is expected is None
        return
    assert [one.id for one in found] == [one.id for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5, rel=0)
        values = [[value for _, value in each.best] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=0)


def same(found: Any, expected: Expected) -> bool:
    """Whether a text is the one that was expected, and not another from a near tie on."""
    assert isinstance(found, Generation), found
    wanted = expected.result
    check_logprobs(found.prompt_logprobs, wanted.prompt_logprobs)
    if found.ids != wanted.ids and min(expected.gaps) < NEAR_TIE:
        return False
    names = ("ids", "text", "finish_reason", "context_full")
    for name in names:
        assert getattr(found, name) == getattr(wanted, name)
    check_logprobs(found.logprobs, wanted.logprobs)
    return True


def check_sum(emissions: Sequence[Emission], result: Any) -> None:
    """Emissions add up to the result, and the last alone tells a reason."""
    assert sum((each.ids for each in emissions), ()) == result.ids
    assert "".join(each.text for each in emissions) == result.text
    assert [each.finish_reason for each in emissions[:-1]] == [None] * len(emissions[:-1])
    if emissions:
        assert emissions[-1].finish_reason == result.finish_reason
    if result.logprobs is not None:
        assert sum((each.logprobs for each in emissions), ()) == result.logprobs


class Run:
    """Jobs that come in any order, among neighbors of which some are canceled."""

    def __init__(self, engine: Engine[str], seed: int) -> None:
        self.engine, self.draw = engine, random.Random(seed)
        self.emissions: dict[int, list[Emission]] = {}
        self.results: dict[int, Any] = {}
        self.steps = 0

    def __call__(self, jobs: Sequence[Job], neighbors: Sequence[Job] = ()) -> list[list[Any]]:
        """The results of each job."""
        engine, draw = self.engine, self.draw
        pending = [*enumerate(jobs), *((-1, job) for job in neighbors)]
        draw.shuffle(pending)
        tickets: dict[int, list[int]] = {}
        canceled: list[int] = []
        while pending or engine.busy:
            for _ in range(draw.choice([0, 1, 2, 30])):
                if pending:
                    place, job = pending.pop()
                    added = [engine.add(each) for each in job.prepare(engine)]
                    if place >= 0:
                        tickets[place] = added
                    else:
                        canceled += added
            for ticket in canceled:
                if draw.random() < 0.1:
                    engine.cancel(ticket)
            for ticket, emission in engine.step():
                self.emissions.setdefault(ticket, []).append(emission)
            self.steps += 1
            self.results |= engine.collect()
            memory = engine.memory
            assert (
                memory is None
                or memory._max_bytes is None
                or (engine.used_cache_bytes <= memory._max_bytes)
            )
        return [[self.results[each] for each in tickets[place]] for place in range(len(jobs))]


def random_clock(seed: int) -> Callable[[], float]:
    """Seconds that pass by chance: chunks are of any size."""
    draw, now = random.Random(seed), 0.0

    def clock() -> float:
        nonlocal now
        now += draw.choice([0.001, 0.002, 0.05])
        return now

    return clock


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(
    ("rows", "chunk", "little_memory"), WAYS if PROMPTS >= 200 else FEW, ids=str
)
def test_every_text_is_as_it_would_be_alone(
    model: Llama,
    byte_level: Tokenizer,
    expected: list[list[Expected]],
    rows: int,
    chunk: int | None,
    little_memory: bool,
    kernels: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_kernels(model, None if kernels else Kernels())
    put_back = 0
    original = Schedule.put_back

    def counted(self: Schedule, one: Scheduled, runner: Any) -> None:
        nonlocal put_back
        put_back += 1
        original(self, one, runner)

    monkeypatch.setattr(Schedule, "put_back", counted)
    engine = Engine(
        model,
        byte_level,
        rows=rows,
        prefill_chunk=chunk,
        # A row of the whole context, and a page more.
        cache_bytes=(CONTEXT + PAGE) * POSITION if little_memory else None,
    )
    engine.costs.clock = random_clock(rows)
    run = Run(engine, seed=rows)
    found = run(make_jobs(PROMPTS, 0), make_jobs(PROMPTS // 4, 1))
    ties = 0
    for results, wanted in zip(found, expected, strict=True):
        for result, one in zip(results, wanted, strict=True):
            ties += not same(result, one)
    assert ties <= PROMPTS // 50, "near ties are rare"
    for ticket, result in run.results.items():
        check_sum(run.emissions.get(ticket, []), result)
    assert engine.used_cache_bytes == 0
    assert put_back > 0 or not little_memory or rows < 16 or PROMPTS < 200


@pytest.mark.parametrize(
    ("rows", "chunk", "little_memory"), WAYS if PROMPTS >= 200 else FEW, ids=str
)
def test_a_cache_in_int8_changes_no_text_between_ways(
    model: Llama, byte_level: Tokenizer, rows: int, chunk: int | None, little_memory: bool
) -> None:
    """Where sums are taken in another order a code may be another one; lolama-quant compares bits."""
    set_kernels(model, Kernels())
    jobs = make_jobs(PROMPTS, 0)
    wanted = [
        [result.ids for result in Run(alone_engine, seed=0)([job])[0]]
        for job in jobs
        for alone_engine in [Engine(model, byte_level, rows=1, cache_dtype="int8")]
    ]
    position = 2 * 2 * 2 * (8 + 2)
    engine = Engine(
        model,
        byte_level,
        rows=rows,
        prefill_chunk=chunk,
        cache_bytes=(CONTEXT + PAGE) * position if little_memory else None,
        cache_dtype="int8",
    )
    engine.costs.clock = random_clock(rows)
    found = Run(engine, seed=rows)(jobs, make_jobs(PROMPTS // 4, 1))
    texts = [[result.ids for result in results] for results in found]
    same_texts = sum(one == other for one, other in zip(texts, wanted, strict=True))
    assert same_texts >= 0.9 * len(jobs)
    assert engine.used_cache_bytes == 0
    assert not little_memory or engine.kept_cache_bytes <= (CONTEXT + PAGE) * position


# ------------------------------------------------------------------------------- what may be asked of it


GREEDY = GenerationConfig.greedy(max_new_tokens=4, ignore_eos=True)


def finish(engine: Engine[Any]) -> dict[int, Any]:
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return results | engine.collect()


def alone(model: Llama, ids: list[int]) -> tuple[int, ...]:
    """Greedy ids, each from a forward over all before it."""
    found: list[int] = []
    for _ in range(GREEDY.max_new_tokens):
        found.append(int(model(torch.tensor([[*ids, *found]]))[0, -1].argmax()))
    return tuple(found)


def test_row_292_requests_that_make_no_sense_are_refused(model: Llama) -> None:
    engine = Engine(model)
    [prepared] = engine.prepare([[1, 2]], [GREEDY])
    ticket = engine.add(prepared)
    for other in (engine, Engine(model)):
        with pytest.raises(UsageError, match="request: was added before"):
            other.add(prepared)
    assert finish(engine)[ticket].ids == alone(model, [1, 2])
    assert engine.prepare([], []) == []
    for prompts, configs in (([[1]], []), ([], [None]), ([[1], [2]], [None])):
        with pytest.raises(UsageError, match=f"{len(configs)} configs for {len(prompts)} prompts"):
            engine.prepare(prompts, configs)


def test_a_processor_may_submit_and_cancel(model: Llama) -> None:
    """It is called within a step; what it asks for counts from its end."""
    engine, submitted = Engine(model), list[int]()

    def asks(input_ids: Tensor, scores: Tensor) -> Tensor:
        if not submitted:
            submitted.append(engine.submit([9, 8], GREEDY))
            engine.cancel(unwanted)
        if input_ids.shape[1] == 4:
            engine.cancel(itself)
        return scores

    itself = engine.submit([1, 2], GREEDY, logits_processors=[asks])
    unwanted, other = engine.submit([3], GREEDY), engine.submit([4], GREEDY)
    results = finish(engine)
    assert set(results) == {other, *submitted}
    assert results[other].ids == alone(model, [4])
    assert results[submitted[0]].ids == alone(model, [9, 8])
    assert engine.used_cache_bytes == 0


def test_a_processor_may_not_step(model: Llama) -> None:
    engine = Engine(model)

    def steps(input_ids: Tensor, scores: Tensor) -> Tensor:
        engine.step()
        return scores

    steps_too = engine.submit([1, 2], GREEDY, logits_processors=[steps])
    other = engine.submit([3], GREEDY)
    results = finish(engine)
    assert "a step of it runs already" in str(results[steps_too])
    assert results[other].ids == alone(model, [3])


@pytest.mark.parametrize("keeps", [False, True])
def test_a_processor_may_generate_with_its_own_generator(model: Llama, keeps: bool) -> None:
    prefixes = PrefixCache(1 << 20) if keeps else None
    generator, found = TextGenerator(model, prefix_cache=prefixes), list[tuple[int, ...]]()
    generator.generate([5], GREEDY)

    def asks(input_ids: Tensor, scores: Tensor) -> Tensor:
        found.append(generator.generate([1, 2, 3], GREEDY).ids)
        return scores

    result = generator.generate([1, 2], GREEDY, logits_processors=[asks])
    assert result.ids == alone(model, [1, 2])
    assert found == [alone(model, [1, 2, 3])] * 4


def test_results_are_handed_out_once_and_unknown_tickets_are_nothing(model: Llama) -> None:
    engine = Engine(model)
    for ticket in (0, -1, 5):
        engine.cancel(ticket)
    assert (engine.step(), engine.collect(), engine.busy) == ([], {}, False)
    ticket = engine.submit([1, 2], GREEDY)
    assert set(finish(engine)) == {ticket}
    engine.cancel(ticket)
    assert (engine.step(), engine.collect(), engine.used_cache_bytes) == ([], {}, 0)


def test_an_engine_keeps_its_model(model: Llama) -> None:
    own = copy.deepcopy(model)
    engine, expected = Engine(own), alone(model, [1, 2])
    ticket = engine.submit([1, 2], GREEDY)
    engine.step()
    del own
    gc.collect()
    assert finish(engine)[ticket].ids == expected


def test_the_edges_of_the_context(model: Llama) -> None:
    """Prompts as long as it, and one less, without new tokens and with more than there is room for."""
    engine = Engine(model)
    whole, most = [7] * CONTEXT, 10**9
    cases: list[tuple[list[int], int, int | None, tuple[Any, ...]]] = [
        ([1], 0, None, (0, False, None)),
        ([1], 0, 1, (0, False, 0)),
        (whole, 0, 1, (0, False, CONTEXT - 1)),
        (whole, 5, None, (0, True, None)),
        (whole, 5, 0, (0, True, CONTEXT - 1)),
        (whole[1:], 5, 0, (1, True, CONTEXT - 2)),
        ([1], most, None, (CONTEXT - 1, True, None)),
    ]
    tickets = [
        engine.submit(ids, max_new_tokens=new, prompt_logprobs=count, ignore_eos=True, seed=1)
        for ids, new, count, _ in cases
    ]
    results = finish(engine)
    for ticket, (*_, expected) in zip(tickets, cases, strict=True):
        result = results[ticket]
        read = result.prompt_logprobs
        found = (len(result.ids), result.context_full, None if read is None else len(read))
        assert (found, result.finish_reason) == (expected, "length")
    assert engine.used_cache_bytes == 0


def test_continuations_of_a_prompt_differ_by_their_seeds(model: Llama) -> None:
    engine, most = Engine(model), (1 << 63) - 1
    for seed, seeds in ((3, [3, 4, 5]), (most, [most, 0, 1])):
        three = engine.prepare([[1, 2]], [None], (), {"seed": seed, "max_new_tokens": 9}, n=3)
        tickets = [engine.add(each) for each in three]
        tickets += [engine.submit([1, 2], seed=each, max_new_tokens=9) for each in seeds]
        results = finish(engine)
        ids = [results[ticket].ids for ticket in tickets]
        assert ids[:3] == ids[3:]
        assert len(set(ids[:3])) > 1
    three = engine.prepare([[1, 2]], [None], (), {"max_new_tokens": 9}, n=3)
    tickets = [engine.add(each) for each in three]
    results = finish(engine)
    assert len({results[ticket].ids for ticket in tickets}) > 1


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1])
def test_a_cap_below_a_page_is_a_page(model: Llama, length: int) -> None:
    engine = Engine(model, cache_bytes=1)
    ticket = engine.submit([3] * length, max_new_tokens=1)
    result = finish(engine)[ticket]
    if length <= PAGE:
        assert len(result.ids) == 1
    else:
        assert isinstance(result, ResourceError)


def test_two_engines_on_one_memory_get_their_own_texts(model: Llama) -> None:
    """They take turns, share what their prompts begin with, and never each other's pages."""
    memory = RowMemory(runner_of(model), rows=2)
    engines = [Engine(model, memory_of=lambda runner: memory) for _ in range(2)]
    prompts = [[5] * 40, [*[5] * 40, 6], [*[5] * 35, 7], [8]]
    tickets = [[engine.submit(ids, GREEDY) for ids in prompts] for engine in engines]
    results: list[dict[int, Any]] = [{}, {}]
    while any(engine.busy for engine in engines):
        for engine, found in zip(engines, results, strict=True):
            engine.step()
            found |= engine.collect()
    expected = [alone(model, ids) for ids in prompts]
    for own, found in zip(tickets, results, strict=True):
        assert [found[ticket].ids for ticket in own] == expected
    assert memory.used_bytes == 0


def test_row_293_other_threads_may_prepare_and_cancel(model: Llama) -> None:
    """From the first step on, and whatever the step does meanwhile."""
    for seed in range(12):
        engine, draw = Engine(model, rows=4, prefill_chunk=9), random.Random(seed)
        wanted = {engine.submit([place], GREEDY): [place] for place in range(10)}
        unwanted = [engine.submit([5] * draw.randrange(1, 70), GREEDY) for _ in range(30)]

        def cancel(tickets: list[int], engine: Engine[None] = engine) -> None:
            for ticket in tickets:
                engine.prepare([[1, 2, 3]], [GREEDY])
                engine.cancel(ticket)

        with ThreadPoolExecutor(3) as pool:
            canceled = [pool.submit(cancel, unwanted[place::3]) for place in range(3)]
            results = finish(engine)
            for each in canceled:
                each.result()
        for ticket, ids in wanted.items():
            assert results[ticket].ids == alone(model, ids)
        assert (engine.used_cache_bytes, engine.busy) == (0, False)


class Shifted(Llama):
    """A model that adds an input of its own to what it reads, and tells nobody so by its keys."""

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        prompt = super().embed_prompt(input_ids, lengths)
        return Prompt(prompt.embeds + inputs.get("shift", 0), prompt.lengths, prompt.keys)


def test_inputs_of_the_model_are_read_once(model: Llama) -> None:
    """Nobody keeps them, so what they became stays, whatever else is embedded again."""
    shifted = Shifted(model.config).eval()
    shifted.load_state_dict(model.state_dict())
    shift = torch.linspace(-2, 2, 32)
    embeds = shifted.embed(torch.tensor([[1, 2]])) + shift
    first = int(shifted.forward_embeds(embeds)[0].argmax())
    assert first != int(shifted(torch.tensor([[1, 2]]))[0, -1].argmax())
    engine = Engine(shifted, cache_bytes=1)
    tickets = [engine.submit([1, 2], GREEDY, shift=shift) for _ in range(2)]  # type: ignore[call-arg]
    results = finish(engine)
    assert [results[ticket].ids[0] for ticket in tickets] == [first, first]
