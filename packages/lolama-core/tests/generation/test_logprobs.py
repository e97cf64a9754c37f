"""How probable each token was, in steps, streams, batches and results."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from lolama_core import (
    BatchGenerator,
    Emission,
    Generation,
    GenerationConfig,
    Llama,
    TextGenerator,
    Tokenizer,
)
from lolama_core.generation.logprobs import TokenLogprobs, token_logprobs
from lolama_core.generation.request_factory import RequestFactory

MakeLlama = Callable[..., Llama]
LOGITS = torch.tensor([[0.0, math.log(2), -math.inf, math.log(5)]])


def test_they_are_the_models_own() -> None:
    found = token_logprobs(LOGITS, 1, 2)
    assert found.id == 1
    assert found.logprob == pytest.approx(math.log(2 / 8))
    assert [token_id for token_id, _ in found.best] == [3, 1]
    assert [value for _, value in found.best] == pytest.approx([math.log(5 / 8), math.log(2 / 8)])


def test_no_more_than_there_are_and_none_at_all() -> None:
    found = token_logprobs(LOGITS, 2, 100)
    assert (found.logprob, len(found.best), found.best[-1]) == (-math.inf, 4, (2, -math.inf))
    assert token_logprobs(LOGITS, 0, 0).best == ()


def test_sixteen_bits_are_counted_in_float32() -> None:
    logits = torch.arange(1000.0, dtype=torch.bfloat16)[None]
    expected = logits[0].float().log_softmax(-1)
    assert token_logprobs(logits, 7, 0).logprob == expected[7].item()


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
