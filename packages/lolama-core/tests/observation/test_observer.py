"""What is seen of a model while it runs: the numbers that the plain model has, in every kind of block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lolama_core import (
    GenerationConfig,
    Runner,
    TextGenerator,
    load,
    observe,
    reference,
)
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.in_use import slower_blocks
from lolama_core.runtime.kernels import kernels_of
from lolama_core.testing.decoder_kernel import SHAPES
from lolama_core.testing.random_model import random_ids, random_llama
from lolama_core.testing.switches import SWITCHED

LENGTH = 12
GREEDY = GenerationConfig.greedy(max_new_tokens=5, ignore_eos=True)


@pytest.mark.parametrize("name", SHAPES)
def test_the_numbers_of_the_reference(name: str) -> None:
    model = random_llama(**SHAPES[name])
    weights, config, ids = model.state_dict(), model.config, random_ids(model, LENGTH)
    with observe(model) as seen:
        model(ids)
    (found,) = seen.passes
    cos, sin = reference.angles(config, LENGTH)
    x = weights["embed_tokens.weight"].float()[ids[0]]
    assert torch.equal(found.embeds[0], x)
    for layer, block in enumerate(found.layers):
        name = f"layers.{layer}"
        normed = reference.rms_norm(x, weights[f"{name}.attention_norm.weight"], config.eps)
        close(block.cos[0], cos)
        close(block.sin[0], sin)
        queries = reference.linear(weights, f"{name}.attention.q_proj", normed)
        turned = reference.rotate(queries.view(LENGTH, config.num_heads, -1), cos, sin)
        close(block.queries[0], turned.transpose(0, 1))
        keys = reference.linear(weights, f"{name}.attention.k_proj", normed)
        turned_keys = reference.rotate(keys.view(LENGTH, config.num_kv_heads, -1), cos, sin)
        close(block.keys[0], turned_keys.transpose(0, 1))
        hidden = ~reference.visible(LENGTH, config.sliding_window)
        for head in range(config.num_heads):
            shared = head * config.num_kv_heads // config.num_heads
            scores = turned[:, head] @ turned_keys[:, shared].T / config.head_dim**0.5
            weighed = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            close(block.attention[0, head], weighed)
            close(block.heads[0, :, head], weighed @ block.values[0, shared])
        x = x + reference.attention(weights, f"{name}.attention", config, normed, cos, sin)
        close(block.after_attention[0], x)
        normed = reference.rms_norm(x, weights[f"{name}.ffn_norm.weight"], config.eps)
        gate = reference.linear(weights, f"{name}.feed_forward.w_gate", normed)
        assert block.gate is not None and block.neurons is not None
        close(block.gate[0], torch.nn.functional.silu(gate))
        up = reference.linear(weights, f"{name}.feed_forward.w_up", normed)
        close(block.neurons[0], block.gate[0] * up)
        x = x + reference.feed_forward(weights, f"{name}.feed_forward", normed)
        close(block.after[0], x)
    close(seen.logits_after(found, -1)[0], reference.logits(weights, config, ids[0].tolist()))


@pytest.mark.parametrize("name", SWITCHED)
def test_every_kind_of_block(name: str) -> None:
    model = random_llama(**SWITCHED[name])
    ids = random_ids(model, LENGTH)
    expected = model(ids)
    with observe(model) as seen:
        close(model(ids), expected)
    (found,) = seen.passes
    assert len(found.layers) == model.config.num_layers
    close(seen.logits_after(found, -1), expected)
    for layer, block in enumerate(found.layers):
        assert block.attention.shape == (1, model.config.num_heads, LENGTH, LENGTH)
        close(block.attention.sum(-1), torch.ones(block.attention.shape[:3]))
        assert (block.neurons is None) is model.config.has_experts(layer)


def test_a_cache_that_grows_position_by_position() -> None:
    model = random_llama(sliding_window=7, sliding_layers=[1])
    ids = random_ids(model, LENGTH)
    with observe(model) as whole:
        model(ids)
    cache = model.make_cache(1, LENGTH)
    with observe(model) as seen:
        for place in range(LENGTH):
            model(ids[:, place : place + 1], cache)
            cache.advance([1])
    assert [int(one.positions) for one in seen.passes] == list(range(LENGTH))
    for place, found in enumerate(seen.passes):
        for block, expected in zip(found.layers, whole.passes[0].layers, strict=True):
            width = block.attention.shape[-1]  # a window leaves out what is not seen
            past = expected.attention[0, :, place, place + 1 - width : place + 1]
            close(block.attention[0, :, 0], past)
            close(block.after[0, 0], expected.after[0, place])
    assert seen.passes[-1].layers[1].keys.shape[2] == 7
    assert seen.passes[-1].layers[0].keys.shape[2] == LENGTH


def test_rows_of_different_lengths() -> None:
    model = random_llama()
    ids = torch.randint(0, model.vocab_size, (2, LENGTH))
    with observe(model) as seen:
        model.forward_embeds(model.embed(ids), None, [5, LENGTH])
        model(ids[:1, :5])
    both, alone = seen.passes
    close(both.layers[-1].after[0, :5], alone.layers[-1].after[0])


def test_a_text_is_the_same_and_kernels_come_back() -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    generator = TextGenerator(model, tokenizer, draft="off")
    before, runner = (
        generator.generate("Once", config=GREEDY).text,
        Runner(model, kernels_of(model)),
    )
    with observe(model) as seen:
        assert slower_blocks(model).keys() == set(range(len(model.layers)))
        assert generator.generate("Once", config=GREEDY).text == before
    assert len(seen.passes) == 5 and seen.passes[0].positions.shape[1] > 1
    chosen = [int(seen.logits_after(found, -1)[0, -1].argmax()) for found in seen.passes]
    text = tokenizer.decode([*tokenizer.encode_ids("Once"), *chosen])
    assert text.removeprefix("Once") == before
    assert slower_blocks(model) == runner.reasons
    assert not any(
        block._forward_hooks or "attend" in vars(block.attention) for block in model.layers
    )
    generator.generate("Once", config=GREEDY)
    assert len(seen.passes) == 5


def test_an_error_ends_it() -> None:
    model = random_llama()
    with pytest.raises(ZeroDivisionError), observe(model):
        raise ZeroDivisionError
    assert not any("attend" in vars(block.attention) for block in model.layers)


def test_only_one_at_a_time() -> None:
    model = random_llama()
    with observe(model):
        with pytest.raises(UsageError, match="already observed"), observe(model):
            pass
        model(random_ids(model, LENGTH))


def test_a_model_of_another_kind() -> None:
    with pytest.raises(UsageError, match="use a model that lolama builds"), observe(object()):  # type: ignore[arg-type]
        pass


def test_what_is_seen_stays_as_it_was() -> None:
    model = random_llama()
    with observe(model) as seen:
        model(random_ids(model, LENGTH))
    before = seen.passes[0].layers[0].after.clone()
    with observe(model):
        model(random_ids(model, LENGTH) * 0)
    assert torch.equal(seen.passes[0].layers[0].after, before)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
