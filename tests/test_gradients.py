"""Gradients through a loaded model are those of plain torch, whatever has run the model before.

The oracle is `lolama_core.reference`: products and sums of tensors, written out, in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama.model import quantize_model_int8
from lolama_core import Llama, LlamaConfig, TextGenerator, reference
from lolama_quant import Int8Linear

CONFIG = LlamaConfig(
    vocab_size=96,
    d_model=64,
    num_heads=4,
    num_kv_heads=2,
    num_layers=3,
    hidden_dim=176,
    max_seq_len=320,
    attention_bias="qkv",
)
ADAPTED = ("attention.q_proj", "attention.v_proj", "feed_forward.w_down")


class Lora(nn.Module):
    """A low-rank change of a linear (Hu et al. 2021): x → linear(x) + B A x."""

    def __init__(self, linear: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(4, inputs) * 0.1)
        self.b = nn.Parameter(torch.randn(outputs, 4) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) → (..., outputs)."""
        found: Tensor = self.linear(x)
        return found + F.linear(F.linear(x, self.a), self.b)


def random_model() -> Llama:
    torch.manual_seed(7)
    model = Llama(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
    return model


def all_of_it(model: Llama) -> list[nn.Parameter]:
    return list(model.parameters())


def a_new_head(model: Llama) -> list[nn.Parameter]:
    model.requires_grad_(False)
    model.lm_head = cast(Any, nn.Linear(64, 96, bias=True))
    return list(model.lm_head.parameters())


def the_embeddings(model: Llama) -> list[nn.Parameter]:
    model.requires_grad_(False)
    model.embed_tokens.requires_grad_(True)
    return list(model.embed_tokens.parameters())


def adapters(model: Llama) -> list[nn.Parameter]:
    model.requires_grad_(False)
    for block in model.layers:
        for path in ADAPTED:
            linear = cast(Any, block.get_submodule(path))
            owner, _, name = path.rpartition(".")
            made = Lora(linear, linear.in_features, linear.out_features)
            setattr(block.get_submodule(owner), name, made)
    return [p for p in model.parameters() if p.requires_grad]


def plain_weights(model: Llama) -> dict[str, Tensor]:
    """What `reference` reads, made of the model's tensors so that gradients reach them."""
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Lora):
            weights[f"{name}.weight"] = module.b @ module.a  # its linear comes next
            continue
        place = name.removesuffix(".linear")
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, Int8Linear):
            own = {"weight": dequantized(module), "bias": module.bias}
        for key, tensor in own.items():
            if tensor is not None:
                weights[f"{place}.{key}"] = weights.get(f"{place}.{key}", 0) + tensor
    return weights


def dequantized(linear: Int8Linear) -> Any:
    weight = linear.weight.float() * linear.scale[:, None]
    if linear.outlier_columns is not None:
        assert linear.outlier_weight is not None
        weight[:, linear.outlier_columns] += linear.outlier_weight
    return weight


def gradients(
    logits: Tensor, targets: Tensor, trained: list[nn.Parameter]
) -> Iterator[tuple[Tensor, float]]:
    """The gradients of the cross-entropy, each with the size of its largest element."""
    loss = F.cross_entropy(logits, targets)
    for gradient in torch.autograd.grad(loss, trained):
        yield gradient, gradient.abs().max().item()


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.parametrize("int8", [False, True], ids=["dense", "int8"])
@pytest.mark.parametrize("choose", [all_of_it, a_new_head, the_embeddings, adapters])
def test_gradients_are_those_of_plain_torch(
    choose: Callable[[Llama], list[nn.Parameter]], int8: bool, rows: int
) -> None:
    model = random_model()
    if int8:
        if choose is all_of_it:
            pytest.skip("integers do not train")
        quantize_model_int8(model)
    TextGenerator(model).generate([3, 17, 42], max_new_tokens=2, temperature=0.0, ignore_eos=True)
    trained = choose(model)
    ids = torch.randint(96, (rows + 1,), generator=torch.Generator().manual_seed(rows))
    if int8:
        # What no gradient passes through is rounded as the kernels round it; here it passes through all.
        model.embed_tokens.weight.requires_grad_(True)
    found = list(gradients(model(ids[None, :-1])[0], ids[1:], trained))
    weights = plain_weights(model)
    expected = list(
        gradients(reference.logits(weights, CONFIG, ids[:-1].tolist()), ids[1:], trained)
    )
    largest = max(size for _, size in expected)
    for (gradient, _), (right, size) in zip(found, expected, strict=True):
        if rows > 1:  # a single key gets all the attention, whatever queries and keys are
            assert size > 0
        size = max(size, 0.01 * largest)
        torch.testing.assert_close(gradient, right, atol=2e-5 * size, rtol=1e-4)


def test_a_model_that_is_trained_is_then_run_with_its_new_weights() -> None:
    model = random_model()
    generator = TextGenerator(model)
    ids = [3, 17, 42, 5]
    before = generator.score(ids)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    loss = F.cross_entropy(model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = generator.score(ids)
    weights = copy.deepcopy(dict(model.state_dict()))
    scores = reference.logits(weights, CONFIG, ids[:-1]).log_softmax(-1)
    expected = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
    assert after.mean() > before.mean() + 0.1
