"""Whatever is done to an engine, and wherever it is broken off, its memory adds up and texts stay right.

Operations are drawn from a seed, which is in the name of a test that fails. ``LOLAMA_FUZZ_CASES`` sets how
many operations there are, ``LOLAMA_FUZZ_FIRST`` the first seed, and ``LOLAMA_INTERRUPTS`` at how many points
Ctrl-C comes.
"""

from __future__ import annotations

import copy
import gc
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import torch
from torch import Tensor

import lolama_core
from lolama_core import (
    Engine,
    Generation,
    GenerationConfig,
    Llama,
    PrefixCache,
    RopeScaling,
    Tokenizer,
)
from lolama_core.generation.draft_model import DraftModel
from lolama_core.generation.request import Request
from lolama_core.generation.scheduled import Scheduled
from lolama_core.generation.speculation import Speculation
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.generation import Emission
from lolama_core.protocols.types import PromptKey
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of
from lolama_core.runtime.saved_prefixes import restore_prefixes, save_prefixes
from lolama_core.testing.ctrl_c import CtrlC
from lolama_core.testing.drafts import EagerSpeculation, scripted

OPERATIONS = int(os.environ.get("LOLAMA_FUZZ_CASES", "500"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))
INTERRUPTS = int(os.environ.get("LOLAMA_INTERRUPTS", "4"))
VOCABULARY = 406
CONTEXT = 160
POSITION = 2 * 1 * 2 * 4 * 4
"""Bytes of a position: keys and values, 1 layer, 2 heads, 4 wide, float32."""


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "num_layers": 1,
    "hidden_dim": 24,
    "max_seq_len": CONTEXT,
}
DYNAMIC = {
    **SIZES,
    "rope_scaling": RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=40),
}
MakeLlama = Callable[..., Llama]


def check_pages(memory: RowMemory, rows: Sequence[Row]) -> None:
    """Each page is free, or had by the rows and the tree that say so, and bytes tell how many are."""
    pages, tree = memory._pages, memory._tree
    assert pages is not None and tree is not None
    kept = [node.page for node in tree._nodes()]
    spare = [] if memory.recorded is None else memory.recorded.spare.pages
    uses = Counter(page for row in rows for page in row.pages) + Counter(kept) + Counter(spare)
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


def check_memory(*engines: Engine[Any]) -> None:
    """`check_pages` for the rows of engines that share a memory. Each page holds what its rows say."""
    memory = engines[0].memory
    if memory is None or any(engine._broken for engine in engines):
        return  # what Ctrl-C has broken off is put right by the next step
    begun = [one for engine in engines for one in engine._schedule.begun]
    rows = [one.row for one in begun]
    if memory._pages is None:
        assert set(memory._own) == set(rows)
        return
    check_pages(memory, rows)
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


def check_drafts(*speculations: Speculation) -> None:
    """`check_pages` for the texts that draft models follow; each row holds what it was told."""
    rows: dict[RowMemory, list[Row]] = {}
    for speculation in speculations:
        drafter = speculation._drafter
        if not isinstance(drafter, DraftModel) or drafter._memory is None:
            continue
        drafter._memory.turns.take(lambda: None)  # what Ctrl-C has broken off is put right
        texts = rows.setdefault(drafter._memory, [])
        for one, text in drafter._texts.items():
            texts += [text.row] if text.begun else []
            if text.row.length == len(text.ids):  # else it begins anew
                ids = [*one.request.prompt_ids, *one.request.tokens]
                assert text.ids[: text.sure] == ids[: text.sure]
    for memory, texts in rows.items():
        check_pages(memory, texts)


# ------------------------------------------------------------------------------------------- Ctrl-C


SOURCES = [
    str(Path(lolama_core.__file__).parent / part) for part in ("generation", "runtime", "protocols")
]


KINDS: list[tuple[int, int, dict[str, Any]]] = [
    (5, 12, {"temperature": 0.0}),
    (70, 9, {"seed": 1, "xtc_probability": 0.5, "xtc_threshold": 0.02}),
    (33, 15, {"seed": 2, "repetition_penalty": 1.3, "stop": ("zz", "e")}),
    (1, 33, {"seed": 3, "logprobs": 1, "ignore_eos": True}),
    (20, 5, {"temperature": 0.0, "prompt_logprobs": 1}),
    (50, 12, {"seed": 4}),
    (9, 33, {"seed": 6, "temperature": 5.0, "logit_bias": {7: 99.0, 8: 99.0}, "ignore_eos": True}),
]
"""Lengths of prompts and texts, and settings."""

JOBS: list[tuple[list[int], dict[str, Any]]] = [
    ([(7 * i + j) % 400 for j in range(length)], {"max_new_tokens": new, **settings})
    for i, (length, new, settings) in enumerate([*KINDS, (90, 8, {"seed": 5})])
]


Steps: TypeAlias = CtrlC[list[tuple[int, Emission]]]


def run_with(
    engine: Engine[str], ctrl_c: Steps | None = None
) -> tuple[list[Any], dict[int, list[Emission]]]:
    """Results in order, and what was given out, with Ctrl-C within the steps.

    The error is kept, as an interactive Python keeps it.
    """
    errors = []
    tickets = [engine.submit(ids, **settings) for ids, settings in JOBS]
    emissions: dict[int, list[Emission]] = {}
    results: dict[int, Any] = {}
    while engine.busy:
        try:
            emitted = engine.step() if ctrl_c is None else ctrl_c.during(engine.step)
        except KeyboardInterrupt as error:
            assert ctrl_c is not None
            errors.append(error)
            assert not torch.is_inference_mode_enabled()
            emitted, ctrl_c = ctrl_c.result or [], None
        for ticket, emission in emitted:
            emissions.setdefault(ticket, []).append(emission)
        check_memory(engine)
        check_drafts(engine.speculation)
        results |= engine.collect()
    if errors:  # another thread waits for nobody
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(engine.step).result(60) == []
            assert engine.memory is not None
            pool.submit(engine.memory.turns.take, lambda: None).result(60)
            pool.submit(engine._looks_for_memory.take, lambda: None).result(60)
    return [results[ticket] for ticket in tickets], emissions


def nearly(model: Llama) -> Llama:
    """A draft model that often says the same."""
    draft = copy.deepcopy(model)
    weight = draft.embed_tokens.weight
    weight += (
        0.3 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    )
    return draft


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


@pytest.mark.parametrize("kind", ["own", "shared", "dynamic", "lookup", "scripted", "model"])
def test_row_290_ctrl_c_within_a_step_leaves_every_text_right_or_ends_it(
    kind: str, byte_level: Tokenizer, tiny_llama: MakeLlama
) -> None:
    model = tiny_llama(**(DYNAMIC if kind == "dynamic" else SIZES))
    told: dict[tuple[int, ...], Sequence[int]] = {}

    def make(draft: Literal["off"] | Speculation = "off") -> Engine[str]:
        memory_of = PrefixCache(1 << 20).memory_of if kind == "shared" else None
        return Engine(
            model,
            byte_level,
            rows=4,
            prefill_chunk=25,
            cache_bytes=None if kind in ("shared", "dynamic") else 8 * PAGE * POSITION,
            memory_of=memory_of,
            draft=draft,
        )

    def drafting() -> Engine[str]:
        if kind == "scripted":
            return make(
                scripted(lambda request: told[(*request.prompt_ids,)], VOCABULARY, right=0.8)
            )
        if kind == "model":
            return make(EagerSpeculation(nearly(model)))
        return make(EagerSpeculation("lookup") if kind == "lookup" else "off")

    expected, _ = run_with(make())
    for (ids, _), result in zip(JOBS, expected, strict=True):
        told[(*ids,)] = result.ids
    results, _ = run_with(drafting())
    assert all(map(same, results, expected))
    if kind in ("lookup", "scripted", "model"):
        drafted = sum(result.drafted_tokens for result in results)
        assert 5 < sum(result.accepted_tokens for result in results) < drafted
    counted: Steps = CtrlC(*SOURCES)
    run_with(drafting(), counted)
    draw = random.Random(1)
    places = [draw.randrange(1, counted.instructions) for _ in range(INTERRUPTS)]
    broken = 0
    for place in places:
        interrupt, engine = Steps(*SOURCES, place=place), drafting()
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
        gc.collect()  # the error that was kept held what it was raised in
        check_drafts(engine.speculation)
        drafter = engine.speculation._drafter
        if isinstance(drafter, DraftModel):
            assert drafter._memory is not None
            assert drafter._memory.used_bytes == 0, interrupt.where
    assert broken <= len(places) // 2


def test_row_401_ctrl_c_at_the_end_of_the_last_step_loses_no_token(
    byte_level: Tokenizer, tiny_llama: MakeLlama
) -> None:
    """What a step has chosen, and has not handed over, is something to do: the engine is busy."""
    model = tiny_llama(**SIZES)

    def make() -> Engine[str]:
        engine = Engine(model, byte_level)
        engine.submit([5, 6, 7], max_new_tokens=1, temperature=0.0)
        return engine

    Engine(model, byte_level).step()  # what is made once is made
    counted: Steps = CtrlC(*SOURCES)
    counted.during(make().step)
    found = set()
    for place in range(counted.instructions - 120, counted.instructions):
        interrupt, engine = Steps(*SOURCES, place=place), make()
        try:
            emitted = interrupt.during(engine.step)
        except KeyboardInterrupt:
            emitted = interrupt.result or []
        found.add((bool(emitted), engine.busy))
        while engine.busy:
            emitted = [*emitted, *engine.step()]
        (result,) = engine.collect().values()
        given = tuple(token for _, emission in emitted for token in emission.ids)
        assert not isinstance(result, Generation) or given == result.ids, interrupt.where
    assert {(True, False), (False, True)} <= found


def test_row_327_ctrl_c_again_while_a_broken_step_is_put_right_loses_no_result(
    byte_level: Tokenizer, tiny_llama: MakeLlama
) -> None:
    model = tiny_llama(**SIZES)

    def broken() -> tuple[Engine[str], list[int]]:
        """An engine that Ctrl-C has broken off where one text was at its end, and one within a token."""
        engine = Engine(model, byte_level)
        tickets = [engine.submit([5], max_new_tokens=new, ignore_eos=True) for new in (2, 4, 4)]
        engine.step()
        chosen, count = engine.speculation.chosen, 0

        def breaks(one: Scheduled, logits: Tensor, memory: RowMemory) -> Iterator[Emission]:
            nonlocal count
            count += 1
            emissions = [*chosen(one, logits, memory)]
            if count == 2:
                raise KeyboardInterrupt
            yield from emissions

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine._schedule, "leave", lambda one, keep=False: None)
            patch.setattr(engine.speculation, "chosen", breaks)
            with pytest.raises(KeyboardInterrupt):
                engine.step()
        return engine, tickets

    files = [str(Path(SOURCES[0]) / name) for name in ("engine.py", "schedule.py")]
    engine, _ = broken()
    counted: Steps = CtrlC(*files)
    counted.during(engine.step)
    for place in range(1, counted.instructions, 5):
        engine, tickets = broken()
        ctrl_c = Steps(*files, place=place)
        results: dict[int, object] = {}
        with suppress(KeyboardInterrupt):
            ctrl_c.during(engine.step)
        while engine.busy:
            engine.step()
            results |= engine.collect()
        results |= engine.collect()
        assert sorted(results) == tickets, ctrl_c.where
        assert engine.used_cache_bytes == 0
        check_memory(engine)


# --------------------------------------------------------------------------------- random operations


def texts_of(memory: RowMemory) -> set[tuple[PromptKey, ...]]:
    """The keys of each page that is kept, and of all before it."""
    assert memory.kept is not None
    texts: list[tuple[PromptKey, ...]] = []
    for one in memory.kept[0].kept():
        texts.append((() if one.parent is None else texts[one.parent]) + one.keys)
    return {*texts}


def starts(text: tuple[PromptKey, ...], beginning: tuple[PromptKey, ...]) -> bool:
    return text[: len(beginning)] == beginning


BEGINNINGS = [[(11 * i + 3 * j) % 400 for j in range(70)] for i in range(3)]


class Simulation:
    """Random operations on two engines, and what is known of each of their requests.

    Args:
        seed: Decides all of them.
        model: What the engines run. It is changed.
        draft: A model that often says the same. It is changed, too.
        kind: "own" or "shared" memory of the engines, with "recorded" steps, or of "dynamic" RoPE.
        file: Where what they keep is saved.
    """

    def __init__(
        self,
        seed: int,
        model: Llama,
        draft: Llama,
        tokenizer: Tokenizer,
        kind: str,
        file: Path,
    ) -> None:
        self.draw, self.changes, self.accepted = random.Random(seed), 0, 0
        self.model, self.kind, self.file = model, kind, file
        # What is in the file, and which model wrote it; None if nobody knows.
        self.saved: tuple[set[tuple[PromptKey, ...]], int] | None = None
        self.prefixes = PrefixCache(self.draw.choice([0, 6, 1000]) * PAGE * POSITION)
        self.fails = False
        self.engines: list[Engine[str]] = []
        self.draft = draft
        shared = self.drafts()
        for _ in range(2):
            most = self.draw.choice([1, 6, 9, 14, 40]) * PAGE * POSITION
            memory_of: Callable[[CausalLM], RowMemory] | None = None
            if kind == "shared":
                memory_of = self.prefixes.memory_of
            elif kind == "recorded":
                memory_of = partial(RowMemory, max_bytes=most, record=True)
            rows, chunk = self.draw.choice([1, 3, 8]), self.draw.choice([1, 16, 64])
            self.engines.append(
                Engine(
                    self.model,
                    tokenizer,
                    rows=rows,
                    prefill_chunk=chunk,
                    cache_bytes=most,
                    memory_of=memory_of,
                    draft=shared if self.draw.random() < 0.5 else self.drafts(),
                )
            )
        # What is asked of each request, and of which model; those that have ended or were canceled are gone.
        self.pending: list[dict[int, tuple[list[int], int, int]]] = [{}, {}]
        self.given: list[dict[int, int]] = [{}, {}]

    def drafts(self) -> Speculation:
        """What engines try ahead: nothing, or guesses that are right at times."""
        kind = self.draw.choice(["off", "lookup", "scripted", "model", "model"])
        seed = self.draw.randrange(99)
        if kind == "scripted":
            return scripted(self.said, VOCABULARY, seed)
        if kind == "model":
            if self.draw.random() < 0.3:
                return EagerSpeculation(
                    self.draft, seed, partial(self.prefixes.memory_of, drafts=True)
                )
            most = self.draw.choice([4, 9, 1000]) * PAGE * POSITION
            return EagerSpeculation(self.draft, seed, partial(RowMemory, max_bytes=most))
        return EagerSpeculation("lookup" if kind == "lookup" else "off", seed)

    @torch.inference_mode()
    def said(self, request: Request) -> list[int]:
        """The tokens of a text, and the best ones behind them."""
        ids = [*request.prompt_ids, *request.tokens]
        for _ in range(4):
            if len(ids) < CONTEXT:
                ids.append(int(self.model(torch.tensor([ids]))[0, -1].argmax()))
        return ids[len(request.prompt_ids) :]

    def submit(self) -> None:
        draw, place = self.draw, self.draw.randrange(2)
        ids = draw.choice(BEGINNINGS)[: draw.randrange(1, 70)]
        ids = [*ids, *(draw.randrange(400) for _ in range(draw.randrange(30)))]
        new = draw.choice([0, 1, 3, 10, 60])

        def may_fail(input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.fails and draw.random() < 0.2:
                self.fails = False
                raise draw.choice([RuntimeError, ZeroDivisionError, MemoryError, KeyboardInterrupt])
            if draw.random() < 0.002:
                return scores * float("nan")
            return scores

        processors = [may_fail] if draw.random() < 0.5 else []
        config = GenerationConfig.greedy(
            max_new_tokens=new,
            ignore_eos=True,
            prompt_logprobs=0 if draw.random() < 0.1 else None,
        )
        ticket = self.engines[place].submit(ids, config, logits_processors=processors)
        self.pending[place][ticket] = ids, new, self.changes

    def cancel(self) -> None:
        place = self.draw.randrange(2)
        ticket = self.draw.choice([*self.pending[place], 10**6])
        self.engines[place].cancel(ticket)
        self.collect()  # it may have ended before
        self.pending[place].pop(ticket, None)

    def step(self) -> None:
        place = self.draw.randrange(2)
        try:
            emitted = self.engines[place].step()
        except (RuntimeError, ZeroDivisionError, LolamaError, KeyboardInterrupt):
            return
        for ticket, emission in emitted:
            given = self.given[place]
            given[ticket] = given.get(ticket, 0) + 1
            if ticket in self.pending[place]:
                assert given[ticket] <= self.pending[place][ticket][1]
            assert emission.token < VOCABULARY

    def fail(self) -> None:
        self.fails = True

    def interrupt(self) -> None:
        """Ctrl-C at some line of a step, or while texts are saved or restored."""
        operation = self.draw.choice([self.step, self.step, self.save, self.restore])
        try:
            CtrlC[None](*SOURCES, place=self.draw.randrange(1, 9000)).during(operation)
        except KeyboardInterrupt:
            if operation == self.save:
                self.saved = None
        assert not torch.is_inference_mode_enabled()
        if (memory := self.chosen_memory()) is not None:
            memory.turns.when_free(lambda: None)  # what was broken off is put right

    def evict(self) -> None:
        self.prefixes.clear()
        for engine in self.engines:
            if engine.memory is not None:
                engine.memory.turns.when_free(engine.memory.forget)

    def reclaim(self) -> None:
        for engine in self.engines:
            if (memory := engine.memory) is not None:
                kept = self.draw.choice([0, 1, 5]) * PAGE * POSITION
                memory.turns.when_free(lambda memory=memory, kept=kept: memory.reclaim(kept))  # type: ignore[misc]

    def chosen_memory(self) -> RowMemory | None:
        """One whose texts may be saved, or restored, if there is any of the model as it is now."""
        runner = runner_of(self.model)
        if self.kind == "shared":
            return self.prefixes.memory_of(runner)
        memories = [engine.memory for engine in self.engines]
        memories = [one for one in memories if one is not None and one.model is runner]
        return self.draw.choice(memories) if memories and self.kind != "dynamic" else None

    def save(self) -> None:
        """Write what is kept: by `PrefixCache`, if the engines share one, or by what that calls."""
        if self.kind == "dynamic":
            with pytest.raises(UsageError, match="dynamic RoPE"):
                self.prefixes.save(self.file, self.model)
        if (memory := self.chosen_memory()) is None:
            return
        if self.kind == "shared":
            self.prefixes.save(self.file, self.model)
        else:
            assert memory.kept is not None
            kept = partial(save_prefixes, *memory.kept, self.file, self.model)
            memory.turns.take(kept)
        self.saved = texts_of(memory), self.changes % 2

    def restore(self) -> None:
        """Keep what the file holds, as far as there is room, unless another model wrote it."""
        if (memory := self.chosen_memory()) is None or not self.file.exists():
            return
        if self.draw.random() < 0.5:
            self.evict()
        before = memory.turns.take(partial(texts_of, memory))
        assert memory.kept is not None
        tree, pages = memory.kept
        room = pages.left - pages.idle
        try:
            if self.kind == "shared":
                most = max(0, self.prefixes.max_bytes - self.prefixes.nbytes)
                room = min(room, most // pages.page_bytes)
                self.prefixes.load(self.file, self.model)
            else:
                read = partial(restore_prefixes, tree, pages, self.file, self.model)
                memory.turns.take(read)
        except UsageError:
            assert self.saved is None or self.saved[1] != self.changes % 2
            assert texts_of(memory) == before
            return
        if self.saved is not None:
            saved, sign = self.saved
            after = texts_of(memory)
            assert sign == self.changes % 2
            assert after <= before | saved
            assert len(saved) > room or all(
                any(starts(text, one) for text in after) for one in saved
            )

    def change_draft(self) -> None:
        """Guesses are other ones, and right again after the second time."""
        self.draft.embed_tokens.weight.mul_(-1)

    def change(self) -> None:
        self.model.embed_tokens.weight.mul_(-1)
        self.changes += 1

    def collect(self) -> None:
        for engine, pending in zip(self.engines, self.pending, strict=True):
            for ticket, result in engine.collect().items():
                assert ticket in pending, "nothing ends twice"
                ids, new, changes = pending.pop(ticket)
                if isinstance(result, Generation):
                    assert result.accepted_tokens <= result.drafted_tokens
                    self.accepted += result.accepted_tokens
                    assert len(result.ids) == min(new, CONTEXT - len(ids))
                    if changes == self.changes and new < 5:
                        self.check_ids(ids, result.ids)

    @torch.inference_mode()
    def check_ids(self, prompt: list[int], ids: Sequence[int]) -> None:
        """Each is the best one of a forward over all before it, or nearly."""
        for place, token in enumerate(ids):
            logits = self.model(torch.tensor([[*prompt, *ids[:place]]]))[0, -1]
            assert logits[token] > logits.max() - 1e-4

    def check(self) -> None:
        memories = [engine.memory for engine in self.engines]
        if self.kind == "shared" and memories[0] is memories[1]:
            check_memory(*self.engines)
        else:
            for engine in self.engines:
                check_memory(engine)
        check_drafts(*{engine.speculation for engine in self.engines})
        for engine, pending in zip(self.engines, self.pending, strict=True):
            # Else it holds what a broken step had no time to hand over.
            assert not engine._schedule.requests or pending
            assert engine.busy == bool(engine._schedule.requests or engine._emitted)
            assert len(engine._schedule.begun) <= engine._schedule._rows

    def run(self, operations: int) -> Counter[str]:
        """Do as many; how often each was done."""
        weights = {
            self.step: 60,
            self.submit: 22,
            self.cancel: 8,
            self.collect: 4,
            self.evict: 2,
            self.reclaim: 1,
            self.fail: 1,
            self.interrupt: 1,
            self.save: 2,
            self.restore: 2,
            self.change: 1,
            self.change_draft: 1,
        }
        done: Counter[str] = Counter()
        for _ in range(operations):
            [operation] = self.draw.choices([*weights], [*weights.values()])
            operation()
            done[operation.__name__] += 1
            self.check()
        for engine, pending in zip(self.engines, self.pending, strict=True):
            for ticket in pending:
                engine.cancel(ticket)
            pending.clear()
        self.check()
        for engine in self.engines:
            while engine.busy:
                engine.step()
            assert engine.used_cache_bytes == 0
        self.evict()
        self.check()
        assert all(engine.kept_cache_bytes == 0 for engine in self.engines)
        return done


@pytest.mark.parametrize("kind", ["own", "shared", "recorded", "dynamic"])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + max(1, OPERATIONS // 1000)))
def test_random_operations_leave_the_memory_adding_up(
    seed: int,
    kind: str,
    byte_level: Tokenizer,
    tiny_llama: MakeLlama,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    model = tiny_llama(**(DYNAMIC if kind == "dynamic" else SIZES))
    draft = nearly(tiny_llama(**SIZES))
    simulation = Simulation(seed, model, draft, byte_level, kind, tmp_path / "texts")
    done = simulation.run(min(OPERATIONS // 4, 250))
    record_property("seed", seed)
    record_property("operations", dict(done))
    record_property("accepted tokens", simulation.accepted)
