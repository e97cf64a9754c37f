"""Each step of a request says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lolama_core import Generation, GenerationConfig, Llama, Tokenizer
from lolama_core.generation.request import Request
from lolama_core.generation.request_factory import RequestFactory
from lolama_core.protocols.generation import Emission

MakeLlama = Callable[..., Llama]


def request_of(model: Llama, tokenizer: Tokenizer | None, config: GenerationConfig) -> Request:
    [(request, _)] = RequestFactory(model, tokenizer).requests([[5]], [config], (), {})
    return request


def run(request: Request, ids: Sequence[int], vocab_size: int) -> list[Emission]:
    """A step for each id, which is by far the most likely one."""
    given = []
    for token_id in ids:
        logits = torch.zeros(1, vocab_size)
        logits[0, token_id] = 99.0
        given.append(request.step(logits))
    return given


def spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """An id, or several, for each character."""
    return [i for c in text for i in tokenizer.encode(c, add_special_tokens=False)]


def test_without_a_tokenizer_each_step_gives_its_id(tiny_llama: MakeLlama) -> None:
    request = request_of(tiny_llama(), None, GenerationConfig.greedy(max_new_tokens=3))
    assert run(request, [7, 8, 9], 400) == [
        Emission(token=7, ids=(7,), text="", finish_reason=None),
        Emission(token=8, ids=(8,), text="", finish_reason=None),
        Emission(token=9, ids=(9,), text="", finish_reason="length"),
    ]
    assert request.result() == Generation(ids=(7, 8, 9), text=None, finish_reason="length")


def test_an_end_token_is_chosen_and_not_given_out(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    [end] = byte_level.eos_ids
    [x] = spelled(byte_level, "x")
    request = request_of(model, byte_level, GenerationConfig.greedy())
    assert run(request, [x, end], model.vocab_size) == [
        Emission(token=x, ids=(x,), text="x", finish_reason=None),
        Emission(token=end, ids=(), text="", finish_reason="eos"),
    ]
    assert request.result() == Generation(ids=(x,), text="x", finish_reason="eos")


def test_ids_and_text_that_may_belong_to_a_stop_text_come_later(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    config = GenerationConfig.greedy(stop=("abc",))
    x, a, b, c = spelled(byte_level, "xabc")
    request = request_of(model, byte_level, config)
    assert run(request, [x, a, b, x, a, b, c], model.vocab_size) == [
        Emission(x, (x,), "x", None),
        Emission(a, (), "", None),
        Emission(b, (), "", None),
        Emission(x, (a, b, x), "abx", None),
        Emission(a, (), "", None),
        Emission(b, (), "", None),
        Emission(c, (), "", "stop"),
    ]
    whole = Generation(ids=(x, a, b, x), text="xabx", finish_reason="stop", stop_text="abc")
    assert request.result() == whole


def test_an_id_whose_text_is_incomplete_comes_with_those_that_complete_it(
    tiny_llama: MakeLlama, byte_level: Tokenizer
) -> None:
    """Or with the end, whatever its text is then."""
    model = tiny_llama(vocab_size=byte_level.vocab_size)
    hand = spelled(byte_level, "👍")
    assert len(hand) > 1
    config = GenerationConfig.greedy(max_new_tokens=2 * len(hand) - 1)
    request = request_of(model, byte_level, config)
    *before, whole = run(request, hand, model.vocab_size)
    assert [(one.ids, one.text) for one in before] == [((), "")] * len(before)
    assert whole == Emission(hand[-1], tuple(hand), "👍", None)
    *before, last = run(request, hand[:-1], model.vocab_size)
    assert [(one.ids, one.text) for one in before] == [((), "")] * len(before)
    assert last == Emission(hand[-2], tuple(hand[:-1]), byte_level.decode(hand[:-1]), "length")
    assert request.result().ids == (*hand, *hand[:-1])
