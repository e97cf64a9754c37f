"""Thousands of short requests of all kinds: neither an engine nor a generator grows.

``LOLAMA_SOAK_REQUESTS`` sets how many requests there are, ``LOLAMA_SOAK_STREAMS`` how many streams are
dropped.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Engine, Generation, Llama, PrefixCache, TextGenerator, Tokenizer
from lolama_core.protocols.errors import LolamaError
from lolama_core.runtime.runner import runner_of

REQUESTS = int(os.environ.get("LOLAMA_SOAK_REQUESTS", "120"))
STREAMS = int(os.environ.get("LOLAMA_SOAK_STREAMS", "40"))
STATUS = Path("/proc/self/status")
MakeLlama = Callable[..., Llama]
Record = Callable[[str, object], None]

needs_linux = pytest.mark.skipif(not STATUS.exists(), reason="memory is counted by Linux")


def anonymous_memory() -> int:
    """Bytes that this process has and that no file holds, those on the swap included."""
    gc.collect()
    described = dict(line.split(":", 1) for line in STATUS.read_text("ascii").splitlines())
    return sum(int(described[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))


class Growth:
    """What the memory has grown by since a tenth of the work was done."""

    def __init__(self, work: int) -> None:
        self._first, self._done, self.before = max(1, work // 10), 0, 0

    def done(self) -> None:
        self._done += 1
        if self._done == self._first:
            self.before = anonymous_memory()

    def check(self, record: Record) -> None:
        after = anonymous_memory()
        record("bytes", f"{self.before} to {after} after {self._done}")
        assert after < 1.02 * self.before


def in_place(input_ids: Tensor, scores: Tensor) -> Tensor:
    scores[:, input_ids[0, -1]] = -9
    return scores


def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
    return scores * float("nan")


class Even:
    """A `Constraint` that allows every second token."""

    def mask(self) -> Tensor:
        return torch.arange(406) % 2 == 0

    def accept(self, token: int) -> None:
        assert token % 2 == 0

    def rollback(self, count: int) -> None: ...


def some_request(draw: random.Random) -> dict[str, Any]:
    """Arguments of a short request; no other begins like it."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"seed": draw.randrange(9**9)},
        {},
        {"stop": ("e", "the")},
        {"logprobs": 3},
        {"prompt_logprobs": 0},
        {"constraint": Even()},
        {"logits_processors": [in_place]},
        {"logits_processors": [broken]},
        {"max_new_tokens": 0},
    ]
    ids = [draw.randrange(400) for _ in range(draw.choice([2, 9, 33, 50]))]
    return {"input_ids": ids, "max_new_tokens": 4, **draw.choice(kinds)}


@needs_linux
def test_an_engine_does_not_grow(
    tiny_llama: MakeLlama, byte_level: Tokenizer, record_property: Record
) -> None:
    model = tiny_llama(vocab_size=406, max_seq_len=128)
    engine, draw, growth = Engine(model, byte_level, rows=8), random.Random(0), Growth(REQUESTS)
    ended = canceled = 0
    open_tickets: set[int] = set()
    for _ in range(REQUESTS):
        open_tickets.add(engine.submit(**some_request(draw)))
        if draw.random() < 0.1:
            ticket = draw.choice([*open_tickets])
            engine.cancel(ticket)
            open_tickets.discard(ticket)
            canceled += 1
        while len(open_tickets) > 16:
            engine.step()
            results = engine.collect()
            ended += len(results)
            open_tickets -= set(results)
        growth.done()
    while engine.busy:
        engine.step()
    ended += len(engine.collect())
    assert engine.used_cache_bytes == 0
    assert REQUESTS - canceled <= ended <= REQUESTS
    growth.check(record_property)


@needs_linux
def test_a_generator_that_keeps_prefixes_does_not_grow(
    tiny_llama: MakeLlama, byte_level: Tokenizer, record_property: Record
) -> None:
    prefixes = PrefixCache(1 << 18)
    model = tiny_llama(vocab_size=406, max_seq_len=128)
    generator = TextGenerator(model, byte_level, prefix_cache=prefixes)
    draw, growth, failed = random.Random(0), Growth(REQUESTS), 0
    for _ in range(REQUESTS):
        try:
            generator.generate(**some_request(draw))
        except LolamaError:
            failed += 1
        growth.done()
    assert 0 < failed < REQUESTS // 3
    assert 0 < prefixes.nbytes <= 1 << 18
    growth.check(record_property)


@needs_linux
@pytest.mark.parametrize("keeps", [False, True])
def test_streams_that_are_dropped_half_way_leave_nothing(
    tiny_llama: MakeLlama, byte_level: Tokenizer, keeps: bool, record_property: Record
) -> None:
    prefixes = PrefixCache(1 << 18) if keeps else None
    model = tiny_llama(vocab_size=406, max_seq_len=128)
    generator = TextGenerator(model, byte_level, prefix_cache=prefixes)
    draw, growth = random.Random(0), Growth(STREAMS)
    for _ in range(STREAMS):
        ids = [draw.randrange(400) for _ in range(40)]
        stream = iter(generator.generate_stream(ids, max_new_tokens=20, ignore_eos=True))
        for _ in range(draw.randrange(4)):
            next(stream)
        del stream
        growth.done()
    if prefixes is not None:
        assert prefixes.memory_of(runner_of(model)).used_bytes == 0
        assert prefixes.nbytes <= 1 << 18
    growth.check(record_property)


def test_threads_that_share_prefixes_get_the_texts_that_they_would_get_alone(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    """Some of their streams are dropped, and what is kept is dropped now and then."""
    prefixes = PrefixCache(1 << 17)
    model = tiny_llama(vocab_size=406, max_seq_len=128)
    alone = TextGenerator(model, byte_level)
    draw = random.Random(3)
    beginnings = [[draw.randrange(400) for _ in range(60)] for _ in range(3)]
    prompts = [
        [*beginnings[i % 3][: draw.randrange(20, 60)], *(draw.randrange(400) for _ in range(i % 5))]
        for i in range(24)
    ]
    expected = [alone.generate(ids, seed=1, max_new_tokens=6) for ids in prompts]

    def work(number: int) -> list[tuple[int, Generation[str]]]:
        generator = TextGenerator(model, byte_level, prefix_cache=prefixes)
        own, found = random.Random(number), []
        for _ in range(REQUESTS // 20):
            place = own.randrange(len(prompts))
            if own.random() < 0.2:
                next(iter(generator.generate_stream(prompts[place], max_new_tokens=9)), None)
            if own.random() < 0.1:
                prefixes.clear()
            found.append((place, generator.generate(prompts[place], seed=1, max_new_tokens=6)))
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            for place, result in found:
                assert (result.ids, result.text) == (expected[place].ids, expected[place].text)
    gc.collect()
    assert prefixes.memory_of(runner_of(model)).used_bytes == 0
    assert prefixes.nbytes <= 1 << 17
