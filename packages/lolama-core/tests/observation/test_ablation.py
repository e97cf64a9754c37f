"""A model without some of its parts is the model whose weights for them are zero."""

from __future__ import annotations

import pytest
import torch

from lolama_core import GenerationConfig, Llama, TextGenerator, ablate, load, observe
from lolama_core.model.feed_forward import FeedForward
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.in_use import slower_blocks
from lolama_core.testing.random_model import random_ids, random_llama
from lolama_core.testing.switches import SWITCHED


def test_heads_without_weights() -> None:
    model, other = random_llama(), random_llama()
    ids = random_ids(model, 12)
    width = model.config.head_dim
    other.get_parameter("layers.1.attention.o_proj.weight")[:, 2 * width : 3 * width] = 0
    other.get_parameter("layers.2.attention.o_proj.weight")[:, :width] = 0
    before = model(ids)
    with ablate(model, heads=[(1, 2), (2, 0)]):
        torch.testing.assert_close(model(ids), other(ids))
    assert torch.equal(model(ids), before) and not torch.allclose(other(ids), before)


def test_neurons_without_weights() -> None:
    model, other = random_llama(mlp_bias=True), random_llama(mlp_bias=True)
    ids = random_ids(model, 12)
    other.get_parameter("layers.1.feed_forward.w_down.weight")[:, 17] = 0
    before = model(ids)
    with ablate(model, neurons=[(1, 17)]):
        torch.testing.assert_close(model(ids), other(ids))
    assert torch.equal(model(ids), before) and not torch.allclose(other(ids), before)


def test_layers_that_are_not_there() -> None:
    model = random_llama()
    ids = random_ids(model, 12)
    with ablate(model, layers=[0, 2]):
        found = model(ids)
    del model.layers[2], model.layers[0]
    torch.testing.assert_close(found, model(ids))


def test_an_observer_sees_what_is_missing() -> None:
    model = random_llama()
    ids = random_ids(model, 12)
    # Whichever of the two begins first.
    with ablate(model, layers=[1], neurons=[(0, 3)]), observe(model) as inside:
        model(ids)
    with observe(model) as outside, ablate(model, layers=[1], neurons=[(0, 3)]):
        model(ids)
    for seen in (inside, outside):
        first, second = seen.passes[0].layers[:2]
        assert torch.equal(second.after, first.after)
        assert first.neurons is not None and not first.neurons[..., 3].any()


def test_a_story_without_a_head_and_again_with_it() -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    generator = TextGenerator(model, tokenizer)
    config = GenerationConfig.greedy(max_new_tokens=20, ignore_eos=True)
    before = generator.generate("Once upon a time", config=config).text
    with ablate(model, layers=[2]):
        assert set(slower_blocks(model)) >= {2}
        assert generator.generate("Once upon a time", config=config).text != before
    assert generator.generate("Once upon a time", config=config).text == before


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"layers": [3]}, "layer 3: is none of the model's; use 0 to 2"),
        ({"layers": [-1]}, "layer -1: is none of the model's; use 0 to 2"),
        ({"heads": [(0, 6)]}, "head 6: is none of the model's; use 0 to 5"),
        ({"heads": [(9, 0)]}, "layer 9: is none of the model's; use 0 to 2"),
        ({"neurons": [(0, 100)]}, "neuron 100: is none of the model's; use 0 to 99"),
    ],
)
def test_parts_that_there_are_not(parts: dict[str, list[int]], message: str) -> None:
    model = random_llama()
    with pytest.raises(UsageError) as raised, ablate(model, **parts):  # type: ignore[arg-type]
        pass
    assert str(raised.value) == message
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_neurons_of_experts() -> None:
    model = random_llama(**SWITCHED["experts beside a shared one, in some layers"])
    assert isinstance(model.get_submodule("layers.1.feed_forward"), FeedForward)
    with ablate(model, neurons=[(1, 0)]):
        model(random_ids(model, 12))
    with pytest.raises(UsageError, match="layer 0: is a mixture"), ablate(model, neurons=[(0, 0)]):
        pass


def test_models_are_independent() -> None:
    one, other = random_llama(), random_llama()
    ids = random_ids(one, 12)
    with ablate(one, layers=[0]):
        assert not torch.allclose(one(ids), other(ids))
    assert isinstance(other, Llama)
