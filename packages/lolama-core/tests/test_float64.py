"""A model that was made float64, as people do to compare two implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lolama_core import (
    GenerationConfig,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    load,
)
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

GREEDY = GenerationConfig.greedy(max_new_tokens=8)
PROMPT = list(range(5, 45))
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_layer": {"num_layers": 1, "num_kv_heads": 4},
    "shared_heads": {"num_layers": 5, "num_kv_heads": 1},
    "window": {"sliding_window": 8},
    "bias": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "dynamic": {"rope_scaling": RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)},
}


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tiny_llama: Callable[..., Llama]) -> Llama:
    return tiny_llama(**SHAPES[request.param])


def test_row_123_it_predicts_what_it_did_before(model: Llama) -> None:
    ids = torch.tensor([PROMPT])
    single = model(ids)
    double = model.double()
    assert double.embed(ids).dtype == torch.float64
    torch.testing.assert_close(double(ids), single, atol=1e-4, rtol=1e-4)


def test_row_123_every_entrance_works_as_forward_does(model: Llama) -> None:
    model.double()
    ids = list(PROMPT)
    while len(ids) < len(PROMPT) + 8:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    expected = tuple(ids[len(PROMPT) :])
    generator = TextGenerator(model, prefix_cache=PrefixCache(1 << 24))
    for _ in range(2):  # the second time from the prefix cache
        assert generator.generate(PROMPT, GREEDY).ids == expected
    assert tuple(generator.generate_stream(PROMPT, GREEDY)) == expected
    rows = generator.generate_batch([PROMPT, PROMPT[:5], PROMPT], GREEDY)
    assert [row.ids for row in rows] == [
        expected,
        generator.generate(PROMPT[:5], GREEDY).ids,
        expected,
    ]
    recorded = TextGenerator(model)
    recorded._idle = [RowMemory(runner_of(model), 1, record=True)]
    assert recorded.generate(PROMPT, GREEDY).ids == expected
    whole = model(torch.tensor([PROMPT[:-1]]))[0].log_softmax(-1)
    scored = whole.gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0]
    torch.testing.assert_close(generator.score(PROMPT), scored, atol=1e-5, rtol=1e-5)


def test_row_123_it_really_is_more_exact(tiny_llama: Callable[..., Llama]) -> None:
    """A position later, computed in one pass and step by step, agrees to what float64 can tell."""
    model = tiny_llama().double()
    embeds = model.embed(torch.tensor([PROMPT]))
    model.lm_head, model.norm = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    seen: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.forward_embeds(embeds, logits="all")
    cache = model.make_cache(1, len(PROMPT))
    for at in range(len(PROMPT)):
        model.forward_embeds(embeds[:, at : at + 1], cache, logits="all")
        cache.advance([1])
    torch.testing.assert_close(torch.cat(seen[1:], dim=1), seen[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_row_123_a_loaded_model_and_back(stored: str) -> None:
    """Installed kernels are in use; they take the dtypes that they know."""
    model, tokenizer = load("demo", device="cpu", dtype=stored)
    generator = TextGenerator(model, tokenizer)
    before = generator.score(PROMPT)
    assert isinstance(model, Llama)
    for changed in (model.double(), model.float()):
        assert TextGenerator(changed, tokenizer).generate("Once", GREEDY).ids
        torch.testing.assert_close(generator.score(PROMPT), before, atol=0.3, rtol=0.1)
