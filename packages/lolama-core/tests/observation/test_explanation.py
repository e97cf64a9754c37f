"""The numbers of a picture are those of the page that everything is compared with."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from lolama_core import Llama, ablate, explain, load, observe, reference, second_view
from lolama_core.observation import explanation
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.explaining import Explanation
from lolama_core.testing.random_model import random_llama

TEXT = "Once upon a time there was a little dog"


@pytest.fixture(scope="module")
def found() -> Explanation:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    return explain(model, tokenizer, tokenizer.encode_ids(TEXT))


def test_the_numbers_of_the_reference(found: Explanation) -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    assert isinstance(model, Llama)
    weights, config, ids = model.state_dict(), model.config, list(found.ids)
    length = len(ids)
    assert tokenizer.decode(ids) == TEXT
    expected = reference.logits(weights, config, ids)
    for token_id, logit in found.logits:
        assert logit == pytest.approx(float(expected[-1, token_id]), abs=1e-4)
    cos, sin = reference.angles(config, length)
    x = weights["embed_tokens.weight"][ids]
    for number, layer in enumerate(found.layers):
        name = f"layers.{number}"
        normed = reference.rms_norm(x, weights[f"{name}.attention_norm.weight"], config.eps)
        queries = reference.linear(weights, f"{name}.attention.q_proj", normed)
        close(layer.queries, queries.view(length, config.num_heads, -1).transpose(0, 1))
        keys = reference.linear(weights, f"{name}.attention.k_proj", normed)
        close(layer.keys, keys.view(length, config.num_kv_heads, -1).transpose(0, 1))
        added = reference.attention(weights, f"{name}.attention", config, normed, cos, sin)
        close(layer.attention_size, added.norm(dim=-1))
        x = x + added
        normed = reference.rms_norm(x, weights[f"{name}.ffn_norm.weight"], config.eps)
        added = reference.feed_forward(weights, f"{name}.feed_forward", normed)
        close(layer.network_size, added.norm(dim=-1))
        x = x + added
        close(layer.stream, x.norm(dim=-1))
        for head in layer.attention:
            assert [len(row) for row in head] == list(range(1, length + 1))
            assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in head)
        assert all(len(of_position) == 8 for of_position in layer.neurons)
    last = [one.probability for one in found.layers[-1].predictions[-1]]
    close(last, expected[-1].softmax(-1).topk(5).values)


def test_angles_turn_each_pair(found: Explanation) -> None:
    cos, sin = reference.angles(load("demo")[0].config, len(found.ids))
    close(found.angles, torch.atan2(sin, cos))


def test_the_sizes_of_heads_are_of_what_each_adds() -> None:
    model = random_llama(attention_bias=True)
    _, tokenizer = load("demo")
    seen = explain(model, tokenizer, [1, 2, 3])
    ids = torch.tensor([[1, 2, 3]])
    layer = seen.layers[0]
    with observe(model) as whole:
        model(ids)
    with ablate(model, heads=[(0, 2)]), observe(model) as without:
        model(ids)
    change = whole.passes[0].layers[0].after_attention - without.passes[0].layers[0].after_attention
    close(layer.head_sizes[2], change[0].norm(dim=-1))


def test_it_is_json(found: Explanation) -> None:
    text = json.dumps(asdict(found))
    assert json.loads(text)["vocabulary"] == 2048 and len(text) < 500_000
    assert found.cache_bytes == 6 * 2 * 2 * 32 * 4
    assert (
        found.texts[:3] == ["<|bos|>", "Once", " upon"]
        and len(found.candidates) == len(found.logits) == 2000
    )


def test_a_second_view_shares_the_weights_and_nothing_else() -> None:
    model = random_llama(tie_word_embeddings=True)
    ids = torch.tensor([[1, 2, 3]])
    other = second_view(model)
    before = model(ids)
    assert torch.equal(other(ids), before)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert one is same
    with ablate(other, layers=[0]):
        assert torch.equal(model(ids), before) and not torch.allclose(other(ids), before)


@pytest.mark.parametrize(("ids", "words"), [([], "empty"), ([50], "50"), ([1] * 1025, "1024")])
def test_what_cannot_be_explained(ids: list[int], words: str) -> None:
    model = random_llama()
    with pytest.raises(UsageError, match=words):
        explain(model, load("demo")[1], ids)


def test_a_text_that_is_too_long_to_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "MOST_NUMBERS", 3 * 6 * 4 * 4 // 2)
    explain(random_llama(), load("demo")[1], [1, 2, 3, 4])
    with pytest.raises(UsageError, match="has 5 tokens; give 4 at most"):
        explain(random_llama(), load("demo")[1], [1, 2, 3, 4, 5])


def close(found: object, expected: torch.Tensor) -> None:
    numbers = torch.tensor(found)
    assert numbers.shape == expected.shape
    assert (numbers - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
