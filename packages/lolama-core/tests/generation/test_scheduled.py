"""Positions that see each other in both directions, as those of a picture do in some models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Engine, GenerationConfig, Llama, PrefixCache, TextGenerator
from lolama_core.generation.scheduled import Scheduled
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.runner import Runner

GREEDY = GenerationConfig.greedy(max_new_tokens=12, ignore_eos=True)
CAT, DOG = 40, 41
"""Ids of which a run is a picture."""

PICTURES = [1, 2, *[CAT] * 9, 3, *[DOG] * 45, 4, 5]
"""A picture of 9 positions from 2 on, and one of 45 from 12 on."""


class WithPictures(Llama):
    """Runs of `CAT` and of `DOG` are pictures, whose positions see each other."""

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        prompt = super().embed_prompt(input_ids, lengths, **inputs)
        keys: list[tuple[PromptKey, ...]] = []
        spans: list[tuple[tuple[int, int], ...]] = []
        for row in prompt.keys:
            own: list[tuple[int, int]] = []
            named: list[PromptKey] = []
            for token, run in groupby(row):
                count = len(list(run))
                if token in (CAT, DOG):
                    own.append((len(named), len(named) + count))
                    named += [(token, place) for place in range(count)]
                else:
                    named += [token] * count
            keys.append(tuple(named))
            spans.append(tuple(own))
        return Prompt(prompt.embeds, prompt.lengths, tuple(keys), tuple(spans))


@pytest.fixture(params=[None, 6], ids=["whole", "window"])
def model(request: pytest.FixtureRequest, tiny_llama: Callable[..., Llama]) -> WithPictures:
    plain = tiny_llama(max_seq_len=128, sliding_window=request.param)
    found = WithPictures(plain.config).eval().requires_grad_(False)
    found.load_state_dict(plain.state_dict())
    return found


@torch.inference_mode()
def expected(model: Llama, ids: list[int]) -> tuple[int, ...]:
    """The greedy tokens of a model that reads the whole text each time, without a cache."""
    for _ in range(GREEDY.max_new_tokens):
        prompt = model.embed_prompt(torch.tensor([ids]), [len(ids)])
        logits = model.forward_embeds(prompt.embeds, spans=prompt.spans)
        ids = [*ids, int(logits[0].argmax())]
    return tuple(ids[-GREEDY.max_new_tokens :])


def finish(engine: Engine[Any]) -> dict[int, Any]:
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return results


def test_pictures_are_seen_as_a_whole(model: WithPictures) -> None:
    ids = torch.tensor([PICTURES])
    prompt = model.embed_prompt(ids, [len(PICTURES)])
    assert prompt.spans == (((2, 11), (12, 57)),)
    causal = model.forward_embeds(prompt.embeds, logits="all")
    whole = model.forward_embeds(prompt.embeds, logits="all", spans=prompt.spans)
    same = torch.isclose(causal, whole, atol=1e-5).all(-1)[0]
    assert same[:2].all() and not same[2:10].any()  # the first position of a picture sees its last


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [(2, 12), (11,), (57, 58), (2, 11, 12, 57)])
def test_a_prompt_in_parts_is_the_prompt(model: WithPictures, cuts: tuple[int, ...]) -> None:
    prompt = model.embed_prompt(torch.tensor([PICTURES]), [len(PICTURES)])
    whole = model.forward_embeds(prompt.embeds, logits="all", spans=prompt.spans)
    cache, parts = model.make_cache(1, len(PICTURES)), []
    for first, stop in zip((0, *cuts), (*cuts, len(PICTURES)), strict=True):
        own = tuple((a - first, b - first) for a, b in prompt.spans[0] if first <= a and b <= stop)
        part = prompt.embeds[:, first:stop]
        parts.append(model.forward_embeds(part, cache, logits="all", spans=(own,)))
        cache.advance([stop - first])
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk", [1, 3, 16, 512])
@pytest.mark.parametrize("pages", [None, 4])
def test_an_engine_cuts_no_picture(
    model: WithPictures, chunk: int, pages: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, bool]] = []
    forward = Runner.forward_embeds

    def seen(runner: Runner, embeds: Tensor, *others: Any, **more: Any) -> Tensor:
        passes.append((len(embeds), bool(more.get("spans"))))
        return forward(runner, embeds, *others, **more)

    monkeypatch.setattr(Runner, "forward_embeds", seen)
    limit = None if pages is None else pages * PAGE * model.make_cache(1, 1).nbytes
    engine = Engine(model, prefill_chunk=chunk, cache_bytes=limit)
    prompts = [PICTURES, [7, 8], [*[DOG] * 20, 6], [9] * 40]
    tickets = [engine.submit(ids, GREEDY) for ids in prompts]
    results = finish(engine)
    assert [results[ticket].ids for ticket in tickets] == [expected(model, ids) for ids in prompts]
    # Kernels decline a pass with a picture, so no row without one is in it.
    assert {rows for rows, spans in passes if spans} == {1}
    assert pages is not None or max(rows for rows, _ in passes) > 1


def test_prompts_share_what_they_have_in_common(model: WithPictures) -> None:
    warm = TextGenerator(model, prefix_cache=PrefixCache(1 << 20))
    for ids, cached in (
        (PICTURES, 0),
        ([*PICTURES, 6, 7], len(PICTURES)),
        ([1, 2, *[CAT] * 9, 3, 8], 12),
        ([1, 2, *[DOG] * 9, 3, 8], 0),
    ):
        result = warm.generate(ids, GREEDY)
        assert result.ids == expected(model, ids)
        assert result.cached_tokens == cached


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [4, 512])
def test_the_logits_of_a_prompt_with_pictures(model: WithPictures, chunk: int) -> None:
    prompt = model.embed_prompt(torch.tensor([PICTURES]), [len(PICTURES)])
    logits = model.forward_embeds(prompt.embeds, logits="all", spans=prompt.spans)[0]
    engine = Engine(model, prefill_chunk=chunk)
    ticket = engine.submit(PICTURES, replace(GREEDY, prompt_logprobs=1))
    found = finish(engine)[ticket].prompt_logprobs
    # Positions of pictures have none; these are of the tokens 2, 3, 4 and 5.
    expected = logits.log_softmax(-1)[[0, 10, 56, 57], [2, 3, 4, 5]]
    assert [one.logprob for one in found] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_text_goes_on_within_a_picture_that_was_run_as_a_whole(model: WithPictures) -> None:
    """Where memory was short, the last pages of a text are gone, and the first part of a picture is not."""
    engine = Engine(model, prefill_chunk=8)
    engine.submit(PICTURES, GREEDY)
    finish(engine)
    memory = engine.memory
    assert memory is not None and memory.kept is not None
    memory.reclaim(memory.kept[1].page_bytes)
    ticket = engine.submit(PICTURES, GREEDY)
    result = finish(engine)[ticket]
    assert result.cached_tokens == PAGE
    assert result.ids == expected(model, PICTURES)


@pytest.mark.parametrize(
    ("run", "count", "uncut"),
    [
        *[(0, 1, 1), (0, 2, 2), (0, 3, 2), (0, 10, 2), (0, 11, 11), (0, 12, 12), (0, 40, 12)],
        *[(2, 1, 9), (2, 9, 9), (11, 5, 1), (12, 5, 45), (12, 45, 45), (32, 8, 25), (57, 2, 2)],
    ],
)
def test_how_much_runs(model: WithPictures, run: int, count: int, uncut: int) -> None:
    [(request, prompt)] = Engine(model).prepare([PICTURES], [GREEDY])
    one = Scheduled(1, request, prompt, prompt.embeds[:, run:])
    assert one.uncut(count) == uncut
    ran = one.spans(uncut)
    assert ran == tuple(
        (max(first - run, 0), stop - run)
        for first, stop in ((2, 11), (12, 57))
        if run < stop <= run + uncut
    )


def test_positions_of_dynamic_rope_cannot_see_each_other(tiny_llama: Callable[..., Llama]) -> None:
    scaling = {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 16}
    plain = tiny_llama(max_seq_len=128, rope_scaling=scaling)
    model = WithPictures(plain.config).eval().requires_grad_(False)
    with pytest.raises(ModelError, match="has dynamic RoPE, so positions of a picture"):
        TextGenerator(model).generate(PICTURES, GREEDY)
