"""How probable each token was, new or of a prompt, in steps, streams, batches and results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from lolama_core import (
    BatchGenerator,
    Emission,
    Generation,
    GenerationConfig,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    Tokenizer,
)
from lolama_core.generation.engine import Engine
from lolama_core.generation.logprobs import token_logprobs
from lolama_core.generation.request_factory import RequestFactory
from lolama_core.protocols.errors import ResourceError, UsageError
from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.protocols.types import Prompt
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.runner import Runner

MakeLlama = Callable[..., Llama]
LOGITS = torch.tensor([[0.0, math.log(2), -math.inf, math.log(5)]])


def test_they_are_the_models_own() -> None:
    [found] = token_logprobs(LOGITS, [1], 2)
    assert found.id == 1
    assert found.logprob == pytest.approx(math.log(2 / 8))
    assert [token_id for token_id, _ in found.best] == [3, 1]
    assert [value for _, value in found.best] == pytest.approx([math.log(5 / 8), math.log(2 / 8)])


def test_no_more_than_there_are_and_none_at_all() -> None:
    [found] = token_logprobs(LOGITS, [2], 100)
    assert (found.logprob, len(found.best), found.best[-1]) == (-math.inf, 4, (2, -math.inf))
    assert token_logprobs(LOGITS, [0], 0)[0].best == ()


def test_sixteen_bits_are_counted_in_float32() -> None:
    logits = torch.arange(1000.0, dtype=torch.bfloat16)[None]
    expected = logits[0].float().log_softmax(-1)
    assert token_logprobs(logits, [7], 0)[0].logprob == expected[7].item()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 2.0, "top_k": 50, "seed": 3, "repetition_penalty": 1.5},
        {"temperature": 1.0, "seed": 4, "logit_bias": {7: 50.0}},
    ],
)
def test_settings_change_none_and_their_sum_is_the_score(
    tiny_llama: MakeLlama, settings: dict[str, float]
) -> None:
    model, prompt = tiny_llama(), [5, 9, 11]
    generator = TextGenerator(model)
    config = GenerationConfig(max_new_tokens=9, logprobs=4, **settings)  # type: ignore[arg-type]
    result = generator.generate(prompt, config)
    assert result.logprobs is not None
    assert tuple(token.id for token in result.logprobs) == result.ids
    values = torch.tensor([token.logprob for token in result.logprobs])
    scores = generator.score([*prompt, *result.ids])[len(prompt) - 1 :]
    torch.testing.assert_close(values, scores, atol=1e-5, rtol=1e-5)
    assert all(len(token.best) == 4 for token in result.logprobs)
    assert all(
        token.best == tuple(sorted(token.best, key=lambda b: -b[1])) for token in result.logprobs
    )


def test_a_batch_has_them_row_by_row(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    prompts = [[5], [7, 8, 9], [3, 2]]
    ask = [GenerationConfig.greedy(max_new_tokens=6, logprobs=n) for n in (0, 2)]
    configs = [ask[0], GenerationConfig.greedy(max_new_tokens=6), ask[1]]
    alone = [TextGenerator(model).generate(p, c) for p, c in zip(prompts, configs, strict=True)]
    together = TextGenerator(model).generate_batch(prompts, configs)
    assert together[1].logprobs is None
    batch = BatchGenerator(model, rows=2)
    tickets = [batch.submit(p, c) for p, c in zip(prompts, configs, strict=True)]
    collected: dict[int, object] = {}
    while batch.busy:
        batch.step()
        collected |= batch.collect()
    for place, ticket in enumerate(tickets):
        in_batch = collected[ticket]
        assert isinstance(in_batch, Generation)
        for result in (together[place], in_batch):
            _same(result, alone[place])


def _same(result: Generation[None], expected: Generation[None]) -> None:
    assert result.ids == expected.ids
    if expected.logprobs is None:
        assert result.logprobs is None
        return
    assert result.logprobs is not None
    for mine, theirs in zip(result.logprobs, expected.logprobs, strict=True):
        assert mine.id == theirs.id
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-5)
        assert [b[0] for b in mine.best] == [b[0] for b in theirs.best]


def test_they_come_with_their_ids_when_a_stop_text_is_ruled_out(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    config = GenerationConfig.greedy(stop=("abc",), logprobs=0)
    [(request, _)] = RequestFactory(model, byte_level).requests([[5]], [config], (), {})
    x, a, b, c = (i for s in "xabc" for i in byte_level.encode(s, add_special_tokens=False))

    def step(token_id: int, above: float) -> Emission:
        logits = torch.zeros(1, model.vocab_size)
        logits[0, token_id] = above
        return request.step(logits)

    def of(token_id: int, above: float) -> TokenLogprobs:
        logits = torch.zeros(model.vocab_size)
        logits[token_id] = above
        return TokenLogprobs(token_id, logits.log_softmax(-1)[token_id].item(), ())

    given = [step(*each).logprobs for each in ((x, 1), (a, 2), (b, 3), (x, 4), (a, 5), (b, 6))]
    assert given == [(of(x, 1),), (), (), (of(a, 2), of(b, 3), of(x, 4)), (), ()]
    assert step(c, 7).logprobs == ()
    assert request.result().logprobs == (of(x, 1), of(a, 2), of(b, 3), of(x, 4))


def test_a_stream_gives_out_what_each_step_gave(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    generator = TextGenerator(tiny_llama(vocab_size=byte_level.vocab_size), byte_level)
    stream = generator.generate_stream([5], temperature=0.0, max_new_tokens=8, logprobs=1)
    given = list(stream.emissions())
    assert stream.result is not None
    assert tuple(i for emission in given for i in emission.ids) == stream.result.ids
    assert tuple(p for emission in given for p in emission.logprobs) == stream.result.logprobs
    assert "".join(emission.text for emission in given) == stream.result.text
    assert [emission.finish_reason for emission in given] == [None] * 7 + ["length"]
    assert list(stream) == list(stream.result.ids)


def test_nobody_who_does_not_ask_gets_any(tiny_llama: MakeLlama) -> None:
    stream = TextGenerator(tiny_llama()).generate_stream([5], max_new_tokens=3)
    assert [emission.logprobs for emission in stream.emissions()] == [()] * 3
    assert stream.result is not None and stream.result.logprobs is None


# --------------------------------------------------------------------------------------------- of prompts

PROMPT = torch.randint(0, 400, (90,), generator=torch.Generator().manual_seed(6)).tolist()
READ = GenerationConfig.greedy(max_new_tokens=3, prompt_logprobs=2)


def expected_of(model: Llama, ids: list[int], count: int) -> list[TokenLogprobs]:
    """From one pass of the model itself."""
    return token_logprobs(model(torch.tensor([ids]))[0, :-1], ids[1:], count)


def same_logprobs(
    found: tuple[TokenLogprobs, ...] | None, expected: Sequence[TokenLogprobs]
) -> None:
    assert found is not None
    assert [token.id for token in found] == [token.id for token in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [one for one, _ in mine.best] == [one for one, _ in theirs.best]
        values = [value for _, value in theirs.best]
        assert [value for _, value in mine.best] == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 5, 100])
@pytest.mark.parametrize("most", [0, 3])
def test_those_of_a_prompt_are_its_score(tiny_llama: MakeLlama, count: int, most: int) -> None:
    """Whether a text follows or not."""
    model = tiny_llama(max_seq_len=128)
    generator = TextGenerator(model)
    settings = GenerationConfig.greedy(max_new_tokens=most, prompt_logprobs=count)
    result = generator.generate(PROMPT, settings)
    same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT, count))
    assert result.prompt_logprobs is not None
    assert {len(token.best) for token in result.prompt_logprobs} == {count}
    values = torch.tensor([token.logprob for token in result.prompt_logprobs])
    torch.testing.assert_close(values, generator.score(PROMPT), atol=1e-5, rtol=1e-5)
    plain = generator.generate(PROMPT, settings.with_settings(prompt_logprobs=None))
    assert (result.ids, result.finish_reason) == (plain.ids, plain.finish_reason)
    assert plain.prompt_logprobs is None and result.logprobs is None


def test_a_prompt_of_one_token_has_none(tiny_llama: MakeLlama) -> None:
    """Nothing comes before it."""
    assert TextGenerator(tiny_llama()).generate([5], READ).prompt_logprobs == ()


def test_a_prompt_that_fills_the_context_has_them(tiny_llama: MakeLlama) -> None:
    model = tiny_llama(max_seq_len=90)
    result = TextGenerator(model).generate(PROMPT, READ)
    assert result.context_full and result.ids == ()
    same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT, 2))


@pytest.mark.parametrize("chunk", [1, 7, 32, 89, 512])
def test_chunks_of_a_prompt_join(tiny_llama: MakeLlama, chunk: int) -> None:
    model = tiny_llama(max_seq_len=128)
    engine = Engine(model, prefill_chunk=chunk)
    ticket = engine.submit(PROMPT, READ)
    while engine.busy:
        engine.step()
    result = engine.collect()[ticket]
    assert isinstance(result, Generation)
    same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT, 2))


def test_rows_beside_each_other_have_their_own(tiny_llama: MakeLlama) -> None:
    """Some ask, and some do not; n continuations of a prompt have the same."""
    model = tiny_llama(max_seq_len=128)
    generator = TextGenerator(model)
    prompts = [PROMPT[:3], PROMPT, PROMPT[40:], PROMPT[:50]]
    counts = [0, 3, None, 1]
    configs = [GenerationConfig.greedy(max_new_tokens=5, prompt_logprobs=n) for n in counts]
    results = generator.generate_batch(prompts, configs, n=2)
    for place, (ids, count) in enumerate(zip(prompts, counts, strict=True)):
        expected = generator.generate(ids, configs[place])
        for result in results[2 * place : 2 * place + 2]:
            assert result.ids == expected.ids
            if count is None:
                assert result.prompt_logprobs is None
            else:
                same_logprobs(result.prompt_logprobs, expected_of(model, ids, count))


@pytest.mark.parametrize("most", [0, 3])
def test_a_prompt_that_is_known_already_is_read_all_the_same(
    tiny_llama: MakeLlama, most: int
) -> None:
    """What a cache holds has no logits. Others may go on from what was read."""
    model = tiny_llama(max_seq_len=128)
    generator = TextGenerator(model, prefix_cache=PrefixCache(1 << 24))
    read = GenerationConfig.greedy(max_new_tokens=most, prompt_logprobs=2)
    for _ in range(2):
        result = generator.generate(PROMPT[:60], read)
        assert result.cached_tokens == 0
        same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT[:60], 2))
    following = generator.generate(PROMPT, GenerationConfig.greedy(max_new_tokens=3))
    assert following.cached_tokens == 60
    assert following.ids == TextGenerator(model).generate(PROMPT, READ).ids


def test_a_prompt_that_is_put_back_half_run_is_read_anew(tiny_llama: MakeLlama) -> None:
    """And one that was through is not read again."""
    model = tiny_llama(max_seq_len=128)
    page = PAGE * model.make_cache(1, 1).nbytes
    engine = Engine(model, prefill_chunk=20, cache_bytes=5 * page)
    prompts = [PROMPT[:30], PROMPT[10:70]]
    config = GenerationConfig.greedy(max_new_tokens=60, prompt_logprobs=2)
    tickets = [engine.submit(ids, config) for ids in prompts]
    results: dict[int, object] = {}
    half_run, begun_anew = set[int](), 0
    while engine.busy:
        engine.step()
        waiting = {one.ticket for one in engine._schedule.waiting}
        begun_anew += len(waiting & half_run)
        half_run = {one.ticket for one in engine._schedule.begun} | (half_run - waiting)
        results |= engine.collect()
    assert begun_anew
    for ticket, ids in zip(tickets, prompts, strict=True):
        result = results[ticket]
        assert isinstance(result, Generation)
        assert result.ids == TextGenerator(model).generate(ids, config).ids
        same_logprobs(result.prompt_logprobs, expected_of(model, ids, 2))


@pytest.mark.parametrize("fails", range(6))
def test_a_pass_that_fails_leaves_out_and_repeats_none(
    tiny_llama: MakeLlama, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(max_seq_len=128)
    engine, passes = Engine(model, prefill_chunk=25), iter(range(99))
    ticket, forward = engine.submit(PROMPT, READ), Runner.forward_embeds

    def full_once(self: Runner, *arguments: Any, **options: Any) -> torch.Tensor:
        if next(passes) == fails:
            raise MemoryError
        return forward(self, *arguments, **options)

    monkeypatch.setattr(Runner, "forward_embeds", full_once)
    failures = 0
    while engine.busy:
        try:
            engine.step()
        except ResourceError:
            failures += 1
    result = engine.collect()[ticket]
    assert isinstance(result, Generation) and failures == 1
    same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT, 2))


def test_under_dynamic_rope_they_are_those_of_the_whole_prompt(tiny_llama: MakeLlama) -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    model = tiny_llama(rope_scaling=scaling, max_seq_len=128)
    result = TextGenerator(model).generate(PROMPT[:40], READ)
    same_logprobs(result.prompt_logprobs, expected_of(model, PROMPT[:40], 2))


class WithPictures(Llama):
    """Behind the first two tokens there is a picture, of four positions and one id."""

    keyed = True

    def embed_prompt(
        self, input_ids: torch.Tensor, lengths: Sequence[int], **inputs: Any
    ) -> Prompt:
        prompt = super().embed_prompt(input_ids, lengths)
        picture = torch.randn(1, 4, prompt.embeds.shape[2], generator=torch.manual_seed(1))
        embeds = torch.cat((prompt.embeds[:, :2], picture, prompt.embeds[:, 3:]), dim=1)
        [keys] = prompt.keys
        seen = (*keys[:2], *(("picture", patch) for patch in range(4)), *keys[3:])
        return Prompt(embeds, (embeds.shape[1],), (seen if self.keyed else (),))


def test_positions_of_pictures_have_none(tiny_llama: MakeLlama) -> None:
    """The token behind a picture has that of its last position."""
    plain = tiny_llama()
    model = WithPictures(plain.config).eval().requires_grad_(False)
    model.load_state_dict(plain.state_dict())
    ids = [*PROMPT[:2], 9, *PROMPT[2:8]]
    result = TextGenerator(model).generate(ids, READ)
    prompt = model.embed_prompt(torch.tensor([ids]), [len(ids)])
    logits = model.forward_embeds(prompt.embeds, logits="all")[0]
    # They are before the second token, and before each of those behind the picture.
    places = [0, *range(5, 11)]
    expected = token_logprobs(logits[places], [ids[1], *ids[3:]], 2)
    same_logprobs(result.prompt_logprobs, expected)
    model.keyed = False
    with pytest.raises(
        UsageError, match="prompt_logprobs: needs a model that tells which token is"
    ):
        TextGenerator(model).generate(ids, READ)
    assert len(TextGenerator(model).generate(ids, max_new_tokens=3, temperature=0.0).ids) == 3


@pytest.mark.parametrize("wrong", [-1, 101, 1.5, True, "2"])
def test_what_is_no_number_of_tokens_is_refused(tiny_llama: MakeLlama, wrong: Any) -> None:
    with pytest.raises(UsageError, match="prompt_logprobs"):
        TextGenerator(tiny_llama()).generate([5, 6], prompt_logprobs=wrong)
