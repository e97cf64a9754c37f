"""Whatever is done to an engine, and wherever it is broken off, its memory adds up and texts stay right.

Operations are drawn from a seed, which is in the name of a test that fails. ``LOLAMA_FUZZ_CASES`` sets how
many operations there are, ``LOLAMA_FUZZ_FIRST`` the first seed, and ``LOLAMA_INTERRUPTS`` at how many points
Ctrl-C comes.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import lolama_core
from lolama_core import (
    Engine,
    Generation,
    Llama,
    LlamaConfig,
    PrefixCache,
    RopeScaling,
    Tokenizer,
)
from lolama_core.generation.request import Emission
from lolama_core.protocols.errors import LolamaError
from lolama_core.runtime.pages import PAGE

INTERRUPTS = int(os.environ.get("LOLAMA_INTERRUPTS", "4"))
VOCABULARY = 406
CONTEXT = 160
POSITION = 2 * 1 * 2 * 4 * 4
"""Bytes of a position: keys and values, 1 layer, 2 heads, 4 wide, float32."""


def make_model(**changes: Any) -> Llama:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        num_heads=4,
        num_kv_heads=2,
        num_layers=1,
        hidden_dim=24,
        max_seq_len=CONTEXT,
    )
    model = Llama(replace(config, **changes)).eval().requires_grad_(False)
    model.lm_head.weight.mul_(8)
    return model


def make_dynamic() -> Llama:
    return make_model(rope_scaling=RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=40))


def check_memory(*engines: Engine[Any]) -> None:
    """Each page is free, or had by the rows and the tree that say so, and bytes tell how many are."""
    memory = engines[0].memory
    if memory is None:
        return
    begun = [one for engine in engines for one in engine._schedule.begun]
    rows = [one.row for one in begun]
    pages = memory._pages
    if pages is None:
        assert set(memory._own) == set(rows)
        return
    tree = memory._tree
    assert tree is not None
    kept = [node.page for node in tree._nodes()]
    uses = Counter(page for row in rows for page in row.pages) + Counter(kept)
    assert len(set(kept)) == len(kept)
    assert set(kept) == pages._kept
    assert [uses[page] for page in range(len(pages._uses))] == pages._uses
    free = {page for begin, end in pages._gaps for page in range(begin, end)}
    assert free == {page for page, count in enumerate(pages._uses) if not count}
    assert pages._gaps == sorted(pages._gaps)
    assert all(
        end < begin for (_, end), (begin, _) in zip(pages._gaps, pages._gaps[1:], strict=False)
    )
    had = {page for row in rows for page in row.pages}
    assert pages.idle == len(set(kept) - had)
    assert memory.used_bytes == len(had) * PAGE * POSITION
    assert memory.idle_bytes == pages.idle * PAGE * POSITION
    assert set(memory._promised) == set(rows)
    held: dict[int, tuple[Any, ...]] = {}
    distinct = 0
    for one in begun:
        keys = one.keys[: one.row.length]
        assert len(one.row.pages) <= max(-(-one.row.length // PAGE), 1)
        for place, page in enumerate(one.row.pages):
            content = tuple(keys[: (place + 1) * PAGE])
            whole = len(content) == (place + 1) * PAGE
            # Who shares a page has the same in it, and before it; its end may be another's.
            if page in held:
                shared = min(len(content), len(held[page]))
                assert content[:shared] == held[page][:shared]
                assert whole
            else:
                distinct += len(content) - place * PAGE
            held[page] = max(held.get(page, ()), content, key=len)
    assert memory.used_bytes <= (1.1 * distinct + PAGE * len(rows)) * POSITION


# ------------------------------------------------------------------------------------------- Ctrl-C


SOURCES = str(Path(lolama_core.__file__).parent)


class Interrupt:
    """Ctrl-C at the n-th line that runs in generation/ or runtime/; it only counts lines if there is none."""

    def __init__(self, place: int | None = None) -> None:
        self.place, self.lines, self.where = place, 0, ""

    def __enter__(self) -> Interrupt:
        sys.settrace(self._calls)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)

    def _calls(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if name.startswith(SOURCES) and ("/generation/" in name or "/runtime/" in name):
            return self._line
        return None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.place:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._line


KINDS: list[tuple[int, int, dict[str, Any]]] = [
    (5, 12, {"temperature": 0.0}),
    (70, 9, {"seed": 1, "xtc_probability": 0.5, "xtc_threshold": 0.02}),
    (33, 15, {"seed": 2, "repetition_penalty": 1.3, "stop": ("zz", "e")}),
    (1, 33, {"seed": 3, "logprobs": 1, "ignore_eos": True}),
    (20, 5, {"temperature": 0.0, "prompt_logprobs": 1}),
    (50, 12, {"seed": 4}),
]
"""Lengths of prompts and texts, and settings."""

JOBS: list[tuple[list[int], dict[str, Any]]] = [
    ([(7 * i + j) % 400 for j in range(length)], {"max_new_tokens": new, **settings})
    for i, (length, new, settings) in enumerate([*KINDS, (90, 8, {"seed": 5})])
]


def run_with(
    engine: Engine[str], interrupt: AbstractContextManager[Any]
) -> tuple[list[Any], dict[int, list[Emission]]]:
    """Results in order, and what was given out, with Ctrl-C within the steps."""
    tickets = [engine.submit(ids, **settings) for ids, settings in JOBS]
    emissions: dict[int, list[Emission]] = {}
    results: dict[int, Any] = {}
    while engine.busy:
        try:
            with interrupt:
                emitted = engine.step()
        except KeyboardInterrupt:
            interrupt = nullcontext()
            continue
        for ticket, emission in emitted:
            emissions.setdefault(ticket, []).append(emission)
        check_memory(engine)
        results |= engine.collect()
    return [results[ticket] for ticket in tickets], emissions


def same(found: Generation[str], expected: Generation[str]) -> bool:
    for one, other in (
        (found.logprobs, expected.logprobs),
        (found.prompt_logprobs, expected.prompt_logprobs),
    ):
        assert (one is None) == (other is None)
        for a, b in zip(one or (), other or (), strict=True):
            assert a.id == b.id
            assert a.logprob == pytest.approx(b.logprob, abs=1e-5)
    plain = [
        replace(each, cached_tokens=0, logprobs=None, prompt_logprobs=None)
        for each in (found, expected)
    ]
    return plain[0] == plain[1]


@pytest.mark.parametrize("kind", ["own", "shared", "dynamic"])
def test_row_290_ctrl_c_within_a_step_leaves_every_text_right_or_ends_it(
    kind: str, byte_level: Tokenizer
) -> None:
    model = make_dynamic() if kind == "dynamic" else make_model()

    def make() -> Engine[str]:
        memory_of = PrefixCache(1 << 20).memory_of if kind == "shared" else None
        return Engine(
            model,
            byte_level,
            rows=4,
            prefill_chunk=25,
            cache_bytes=8 * PAGE * POSITION if kind == "own" else None,
            memory_of=memory_of,
        )

    expected, _ = run_with(make(), nullcontext())
    counted = Interrupt()
    run_with(make(), counted)
    draw = random.Random(1)
    places = [draw.randrange(1, counted.lines) for _ in range(INTERRUPTS)]
    broken = 0
    for place in places:
        interrupt, engine = Interrupt(place), make()
        results, emissions = run_with(engine, interrupt)
        assert interrupt.where, "it was interrupted"
        errors = 0
        for ticket, (result, wanted) in enumerate(zip(results, expected, strict=True), 1):
            if not isinstance(result, Generation):
                assert isinstance(result, LolamaError)
                assert "was broken off" in str(result)
                errors += 1
                continue
            assert same(result, wanted), interrupt.where
            given = emissions[ticket]
            assert tuple(i for each in given for i in each.ids) == result.ids, interrupt.where
            assert "".join(each.text for each in given) == result.text
        assert errors <= 1
        broken += errors
        assert engine.used_cache_bytes == 0, interrupt.where
        check_memory(engine)
    assert broken <= len(places) // 2
