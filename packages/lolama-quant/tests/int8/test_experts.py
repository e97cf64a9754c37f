"""Mixtures of experts in int8: experts are quantized, routers keep their precision, others are not read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lolama_core import Kernels, Llama, LlamaConfig, TextGenerator, set_kernels
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.int8.linear import Int8Linear
from lolama_quant.int8.quantizer import Int8Quantizer

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 3,
    "hidden_dim": 128,
    "max_seq_len": 128,
    "num_experts": 8,
    "experts_per_token": 2,
    "expert_dim": 48,
    "shared_expert_dim": 32,
    "dense_layers": (0,),
}
SCHEME = QuantizationScheme(name="int8")


def dense(dtype: torch.dtype) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**SHAPE)).eval().requires_grad_(False).to(dtype)


def int8(dtype: torch.dtype) -> Llama:
    model = dense(dtype)
    Int8Quantizer().quantize_(model, SCHEME)
    return model


def mixtures(model: Llama) -> list[Any]:
    return [block.feed_forward for place, block in enumerate(model.layers) if place > 0]


def test_all_experts_are_quantized_and_routers_are_not() -> None:
    model = dense(torch.bfloat16)
    report = Int8Quantizer().quantize_(model, SCHEME)
    assert len(report.replaced) == 3 * 4 + 3 + 2 * 3 * (8 + 1)
    for mixture in mixtures(model):
        for expert in (*mixture.experts, mixture.shared_expert):
            for part in (expert.w_gate, expert.w_up, expert.w_down):
                assert isinstance(part, Int8Linear) and part.weight.dtype == torch.int8
        for router in (mixture.router, mixture.shared_gate):
            assert router.weight.dtype == torch.bfloat16
    assert not isinstance(model.lm_head, Int8Linear)


@torch.inference_mode()
def test_logits_are_near_those_of_the_dense_model() -> None:
    """Routing is by unrounded weights, so nearly every token keeps its experts."""
    ids = torch.randint(0, 96, (2, 60), generator=torch.Generator().manual_seed(1))
    expected, found = dense(torch.float32)(ids), int8(torch.float32)(ids)
    assert (found - expected).std() < 0.03 * expected.std()


def spoil(linear: nn.Module) -> None:
    """Whoever reads it gets NaN."""
    assert isinstance(linear, Int8Linear)
    linear.scale.fill_(float("nan"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernels", [None, Kernels()], ids=["installed", "none"])
@torch.inference_mode()
def test_row_338_decoding_reads_only_the_experts_that_are_chosen(
    dtype: torch.dtype, kernels: Kernels | None
) -> None:
    model = int8(dtype)
    set_kernels(model, kernels)
    read: set[tuple[int, int]] = set()
    hooks = [
        expert.register_forward_hook(lambda *_, key=(layer, place): read.add(key))
        for layer, mixture in enumerate(mixtures(model))
        for place, expert in enumerate(mixture.experts)
    ]
    ids = TextGenerator(model).generate([5], temperature=0.0, max_new_tokens=5).ids
    for hook in hooks:
        hook.remove()
    assert 0 < len(read) < 16
    of_all = [
        ((layer, place), part)
        for layer, mixture in enumerate(mixtures(model))
        for place, expert in enumerate(mixture.experts)
        for part in expert.children()
    ]
    for key, part in of_all:
        if key not in read:
            spoil(part)
    assert TextGenerator(model).generate([5], temperature=0.0, max_new_tokens=5).ids == ids
    for key, part in of_all:
        if key in read:
            spoil(part)
    cache = model.make_cache(1, 1)
    assert model.forward_embeds(model.embed(torch.tensor([[5]])), cache).isnan().all()


def test_gradients_of_inputs_flow_through_quantized_experts() -> None:
    model = int8(torch.float32)
    embeds = model.embed(torch.tensor([[3, 4, 5]])).detach().requires_grad_()
    model.forward_embeds(embeds, logits="all").square().sum().backward()  # type: ignore[no-untyped-call]
    assert embeds.grad is not None
    assert bool(embeds.grad.isfinite().all()) and bool(embeds.grad.any(-1).all())


def test_outlier_columns_are_found_for_experts_that_ran() -> None:
    model = dense(torch.float32)
    columns = Int8Quantizer().outlier_columns(model, SCHEME, 2, lambda: model(torch.tensor([[5]])))
    ran = {name for name in columns if ".experts." in name}
    assert len(ran) == 2 * 2 * 3
    Int8Quantizer().quantize_(
        model, QuantizationScheme(name="int8", skipped=("lm_head",), outlier_columns=columns)
    )
    with torch.inference_mode():
        assert model(torch.arange(40)[None]).isfinite().all()
