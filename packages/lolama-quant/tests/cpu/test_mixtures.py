"""Mixtures of experts in the native step: equal to the model's, and the same in any company."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core import Llama
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.runner import Runner
from lolama_core.testing.decoder_kernel import DecoderKernelSuite, logits_of_row, run_by
from lolama_quant.cpu import decoder
from lolama_quant.cpu.decoder import NativeDecoderKernel
from lolama_quant.cpu.library import INSTRUCTION_SETS, NativeLibrary, native_library
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.int8.linear import Int8Linear
from lolama_quant.int8.quantizer import Int8Quantizer

sys.path.insert(0, str(Path(__file__).parents[1] / "grouped"))
from grouped_layers import mix_formats_

KERNEL = NativeDecoderKernel()
LIBRARY = native_library()
pytestmark = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no native library: {LIBRARY}")

SIZES: dict[str, dict[str, Any]] = {
    "one": {"num_experts": 1, "experts_per_token": 1, "expert_dim": 40},
    "all": {"num_experts": 3, "experts_per_token": 3, "expert_dim": 33},
    "wide ones, which threads share": {"num_experts": 4, "experts_per_token": 2, "expert_dim": 390},
    "many": {
        "num_experts": 64,
        "experts_per_token": 8,
        "expert_dim": 24,
        "normalize_expert_weights": True,
    },
    "beside a wider one": {
        "num_experts": 5,
        "experts_per_token": 2,
        "expert_dim": 20,
        "shared_expert_dim": 200,
    },
    "beside a narrower one, with norms after": {
        "num_experts": 5,
        "experts_per_token": 2,
        "expert_dim": 200,
        "shared_expert_dim": 20,
        "norms": "both",
        "residual_scale": 0.5,
    },
}


def model_of(size: str, dtype: torch.dtype = torch.float32) -> Llama:
    """Its logits are what comes behind the last norm, so that they are in a fixed order, too."""
    model = DecoderKernelSuite().model(
        dtype, vocab_size=240, d_model=240, num_layers=2, **SIZES[size]
    )
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.eye(240))
    return model


def usable_sets() -> list[int]:
    if isinstance(LIBRARY, str):
        return []
    best = INSTRUCTION_SETS[LIBRARY.instruction_set]
    return {"portable": [0], "AVX2": [0, 1], "AVX-512": [0, 1, 2], "NEON": [0, 3]}[best]


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_a_token_has_the_same_result_alone_and_among_others(
    monkeypatch: pytest.MonkeyPatch, instruction_set: int, size: str, threads: int
) -> None:
    assert isinstance(LIBRARY, NativeLibrary)
    limited = dataclasses.replace(LIBRARY, instruction_set=instruction_set)
    monkeypatch.setattr(decoder, "native_library", lambda: limited)
    model = model_of(size)
    fast = run_by(KERNEL, model)
    ids = torch.randint(0, model.vocab_size, (1, 70))
    alone = logits_of_row(fast, ids, 1)
    torch.testing.assert_close(alone, logits_of_row(model, ids, 70), atol=1e-5, rtol=1e-5)
    for chunk, rows in ((3, 1), (70, 1), (25, 3)):
        assert torch.equal(logits_of_row(fast, ids, chunk, rows), alone), (chunk, rows)


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_experts_in_int8(size: str) -> None:
    """The step is as near to a model of the same values as the blocks' own forward.

    Most positions are: where two experts score almost alike, rounded activations may choose the other.
    """
    model, plain = model_of(size), model_of(size)
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            plain.get_submodule(name).weight = torch.nn.Parameter(
                module.weight * module.scale[:, None]
            )
    fast = run_by(KERNEL, model)
    ids = torch.randint(0, model.vocab_size, (1, 40))
    exact, alone = logits_of_row(plain, ids, 40), logits_of_row(fast, ids, 1)
    errors = [
        (found - exact).square().mean(1).sqrt().median()
        for found in (alone, logits_of_row(model, ids, 40))
    ]
    assert errors[0] <= 1.5 * errors[1] <= 3e-2
    for chunk, rows in ((3, 1), (40, 1), (25, 3)):
        assert torch.equal(logits_of_row(fast, ids, chunk, rows), alone), (chunk, rows)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_experts_of_grouped_weights(
    monkeypatch: pytest.MonkeyPatch, size: str, portable: bool
) -> None:
    """Formats differ from expert to expert, and with them what their inputs are rounded to."""
    assert isinstance(LIBRARY, NativeLibrary)
    if portable:
        limited = dataclasses.replace(LIBRARY, instruction_set=0, int8_instruction_set=0)
        monkeypatch.setattr(decoder, "native_library", lambda: limited)
    model, plain = model_of(size), model_of(size)
    mix_formats_(model)
    for name, module in model.named_modules():
        if isinstance(module, GroupedLinear):
            plain.get_submodule(name).weight = torch.nn.Parameter(module.dequantized())
    fast = run_by(KERNEL, model)
    ids = torch.randint(0, model.vocab_size, (1, 40))
    exact, alone = logits_of_row(plain, ids, 40), logits_of_row(fast, ids, 1)
    # Where two experts score almost alike, rounded activations may choose the other.
    error = (alone - exact).square().mean(1).sqrt().median()
    assert error <= 0.02 * exact.square().mean().sqrt()
    for chunk, rows in ((3, 1), (40, 1), (25, 3)):
        assert torch.equal(logits_of_row(fast, ids, chunk, rows), alone), (chunk, rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_experts_in_sixteen_bits(dtype: torch.dtype, size: str) -> None:
    """Weights are read as they are, and nothing but the cache is rounded."""
    model = model_of(size, dtype)
    wide = model_of(size)
    wide.load_state_dict({name: t.float() for name, t in model.state_dict().items()})
    fast, same = run_by(KERNEL, model), run_by(KERNEL, wide)
    caches = [model.make_cache(1, 12) for _ in range(2)]
    for token in range(12):
        ids = torch.tensor([[token]])
        found, expected = (
            one.forward_embeds(one.embed(ids), cache)
            for one, cache in zip((fast, same), caches, strict=True)
        )
        for cache in caches:
            cache.advance([1])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_scores_that_are_no_numbers_choose_an_expert_once() -> None:
    model = model_of("many")
    mixture: Any = model.layers[0].feed_forward
    mixture.router.weight[3:].fill_(float("nan"))
    fast = run_by(KERNEL, model)
    assert logits_of_row(fast, torch.tensor([[1, 2, 3]]), 3).isnan().all()


@torch.inference_mode()
def test_weights_are_read_where_they_are() -> None:
    model = model_of("beside a wider one")
    fast, ids = run_by(KERNEL, model), torch.randint(0, model.vocab_size, (1, 9))
    before = logits_of_row(fast, ids, 9)
    mixture: Any = model.layers[1].feed_forward
    for weight in (
        mixture.router.weight,
        mixture.shared_gate.weight,
        mixture.shared_expert.w_up.weight,
        mixture.experts[1].w_down.weight,
    ):
        weight.mul_(-1.5)
        found = logits_of_row(fast, ids, 9)
        torch.testing.assert_close(found, logits_of_row(model, ids, 9), atol=1e-5, rtol=1e-5)
        assert not torch.equal(found, before)
        before = found


@pytest.mark.parametrize("part", ["router", "shared_gate"])
def test_routers_of_another_layout_are_declined(part: str) -> None:
    model = model_of("beside a wider one")
    for block in model.layers:
        router: Any = getattr(block.feed_forward, part)
        weight = router.weight.detach()
        router.weight = torch.nn.Parameter(weight.repeat(1, 2)[:, ::2], requires_grad=False)
    assert not Runner(model, Kernels(decoder=[KERNEL])).native


def test_row_376_experts_that_score_alike_are_chosen_as_torch_does() -> None:
    model = model_of("many")
    router = model.get_parameter("layers.1.feed_forward.router.weight")
    assert Runner(model, Kernels(decoder=[KERNEL])).native
    with torch.no_grad():
        router[7:] = router[7].clone()
    runner = Runner(model, Kernels(decoder=[KERNEL]))
    assert not runner.native
    ids = torch.randint(240, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.equal(runner.forward_embeds(model.embed(ids), logits="all"), model(ids))


def replace(module: Any, name: str, tensor: torch.Tensor) -> None:
    setattr(module, name, torch.nn.Parameter(tensor, requires_grad=False))


CHANGES: dict[str, Any] = {
    "fewer scores": lambda mixture: replace(
        mixture.router, "weight", mixture.router.weight[:4].clone()
    ),
    "more for each token": lambda mixture: setattr(mixture, "per_token", 6),
    "a narrower gate": lambda mixture: replace(
        mixture.shared_gate, "weight", mixture.shared_gate.weight[:, :100].clone()
    ),
    "a wider output": lambda mixture: replace(
        mixture.experts[3].w_down, "weight", torch.zeros(241, 20)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_row_391_mixtures_whose_sizes_do_not_fit_are_declined(change: str) -> None:
    model = model_of("beside a wider one")
    CHANGES[change](model.layers[1].feed_forward)
    assert list(Runner(model, Kernels(decoder=[KERNEL])).native) == [0]


@pytest.mark.parametrize(("name", "value"), [("normalize", None), ("per_token", 2.0)])
def test_row_405_mixtures_with_numbers_of_other_types_are_declined(name: str, value: Any) -> None:
    model = model_of("many")
    setattr(model.layers[1].feed_forward, name, value)
    assert list(Runner(model, Kernels(decoder=[KERNEL])).native) == [0]


@torch.inference_mode()
def test_row_391_an_expert_of_another_width_runs_by_its_own_forward() -> None:
    model = model_of("many")
    mixture: Any = model.layers[1].feed_forward
    for expert in list(mixture.experts)[1:]:
        for name, size in (("w_gate", (8, 240)), ("w_up", (8, 240)), ("w_down", (240, 8))):
            replace(getattr(expert, name), "weight", torch.randn(size))
    fast = Runner(model, Kernels(decoder=[KERNEL]))
    assert list(fast.native) == [0]
    ids = torch.randint(0, model.vocab_size, (1, 9))
    torch.testing.assert_close(
        logits_of_row(fast, ids, 9), logits_of_row(model, ids, 9), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("part", ["ffn_norm", "attention_norm"])
def test_row_391_a_norm_that_torch_would_broadcast_is_declined(part: str) -> None:
    model = model_of("one")
    replace(getattr(model.layers[0], part), "weight", torch.ones(1))
    assert list(Runner(model, Kernels(decoder=[KERNEL])).native) == [1]
