"""A decoding step runs in a kernel or in the blocks: the kernel here is the obvious computation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core import GenerationConfig, Llama, TextGenerator, load, set_kernels
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols import CausalLM, DecoderKernel, DecoderStep
from lolama_core.protocols.decoder_kernel import (
    BlockWeights,
    DecoderShape,
    LinearWeights,
    NewPositions,
)
from lolama_core.runtime.in_use import decoder_in_use, kernels_in_use
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.known import text_model
from lolama_core.runtime.native_step import NativeRun
from lolama_core.runtime.runner import Runner, runner_of
from lolama_core.testing.decoder_kernel import DecoderKernelSuite, run_by


class PlainStep:
    """New positions one by one, and head by head."""

    max_rows = 3
    reads_places = False
    cache_dtypes = (torch.float32, torch.bfloat16, torch.float16)
    fixed_order = False

    def __init__(
        self,
        blocks: Sequence[BlockWeights],
        shape: DecoderShape,
        prompt_dtypes: Sequence[torch.dtype],
    ) -> None:
        self.blocks, self.shape, self.prompt_dtypes, self.calls = blocks, shape, prompt_dtypes, 0
        self.positions = 0

    def __call__(
        self, new: NewPositions, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Tensor:
        self.calls += 1
        self.positions += len(new.x)
        places = [
            (pages, start + i)
            for pages, start, count in zip(new.pages, new.starts, new.counts, strict=True)
            for i in range(count)
        ]
        hidden = new.x.clone()
        for layer, block in enumerate(self.blocks):
            for i, (pages, place) in enumerate(places):
                first = max(0, place + 1 - new.window) if new.window else 0
                # (N, K, size, hd) → (K, N · size, hd), a copy
                own_keys, own_values = (
                    part[layer][pages].transpose(0, 1).flatten(1, 2) for part in (keys, values)
                )
                hidden[i] += self.attention(
                    block, hidden[i], new.cos[i], new.sin[i], own_keys, own_values, place, first
                )
                size = keys[layer].shape[2]
                for part, changed in ((keys, own_keys), (values, own_values)):
                    part[layer][pages[place // size], :, place % size] = changed[:, place]
            normed = self.norm(hidden, block.ffn_norm)
            dense = block.feed_forward()
            gate = F.silu(product(normed, dense.w_gate)) * product(normed, dense.w_up)
            hidden += product(gate, dense.w_down)
        return hidden[torch.tensor(new.counts).cumsum(0) - 1] if new.only_last else hidden

    def attention(
        self,
        block: BlockWeights,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        start: int,
        first: int,
    ) -> Tensor:
        width = self.shape.head_dim
        normed = self.norm(x, block.attention_norm)
        queries = turn(product(normed, block.q_proj).view(-1, width), cos, sin)
        keys[:, start] = turn(product(normed, block.k_proj).view(-1, width), cos, sin).to(
            keys.dtype
        )
        values[:, start] = product(normed, block.v_proj).view(-1, width).to(values.dtype)
        group = self.shape.num_heads // self.shape.num_kv_heads
        heads = []
        for head, query in enumerate(queries):
            seen = slice(first, start + 1)
            scores = keys[head // group, seen].float() @ query / width**0.5
            heads.append(scores.softmax(0) @ values[head // group, seen].float())
        return product(torch.cat(heads), block.o_proj)

    def norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return x / (x.pow(2).mean(-1, keepdim=True) + self.shape.eps).sqrt() * weight


def product(x: Tensor, linear: LinearWeights) -> Tensor:
    result = x @ linear.weight.float().T
    return result if linear.bias is None else result + linear.bias


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class PlainKernel:
    """Takes float32, bfloat16 and float16 on the CPU, and keeps the steps that it made."""

    name = "plain"

    def __init__(self, *prompt_dtypes: torch.dtype) -> None:
        self.steps: list[PlainStep] = []
        self.prompt_dtypes = prompt_dtypes

    def describe(self) -> str:
        return "for tests"

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> DecoderStep | None:
        weight = blocks[0].q_proj.weight
        if weight.device.type != "cpu" or weight.dtype == torch.float64:
            return None
        self.steps.append(PlainStep(blocks, shape, self.prompt_dtypes))
        return self.steps[-1]


class TestPlainKernel(DecoderKernelSuite):
    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        return PlainKernel()


class TestPlainKernelOfPrompts(DecoderKernelSuite):
    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        return PlainKernel(torch.float32)


@pytest.fixture
def kernel() -> PlainKernel:
    return PlainKernel()


@pytest.fixture
def model() -> Llama:
    return DecoderKernelSuite().model()


def step(model: CausalLM, rows: int = 1) -> Tensor:
    """One decoding step after three positions."""
    with torch.inference_mode():
        cache = model.make_cache(rows, 8)
        model.forward_embeds(model.embed(torch.ones(rows, 3, dtype=torch.int64)), cache)
        cache.advance([3] * rows)
        return model.forward_embeds(model.embed(torch.full((rows, 1), 5)), cache)


def test_runs_steps_of_a_few_rows_and_nothing_else(model: Llama, kernel: PlainKernel) -> None:
    runner = run_by(kernel, model)
    step(runner)
    assert kernel.steps[0].calls == 1  # not the prompt of three positions
    step(runner, rows=3)
    assert kernel.steps[0].calls == 2
    step(runner, rows=4)
    assert kernel.steps[0].calls == 2


def test_with_gradients_it_is_the_model(model: Llama, kernel: PlainKernel) -> None:
    embeds = torch.randn(1, 1, 48, requires_grad=True)
    logits = run_by(kernel, model).forward_embeds(embeds, model.make_cache(1, 4))
    [gradient] = torch.autograd.grad(logits.sum(), embeds)
    assert gradient.abs().sum() > 0
    assert kernel.steps[0].calls == 0


def test_a_prompt_goes_to_a_step_that_takes_its_cache_and_padding_does_not() -> None:
    kernel = PlainKernel(torch.float32)
    model = DecoderKernelSuite().model()
    runner = run_by(kernel, model)
    ids = torch.randint(0, model.vocab_size, (3, 5))
    with torch.inference_mode():
        cache = model.make_cache(3, 8)
        runner.forward_embeds(model.embed(ids), cache, [5, 2, 3])
        assert (kernel.steps[0].calls, kernel.steps[0].positions) == (1, 10)
        narrow = type(cache)(
            num_layers=3, batch_size=3, num_kv_heads=2, capacity=8, head_dim=8, dtype=torch.bfloat16
        )
        runner.forward_embeds(model.embed(ids), narrow, [5, 2, 3])
    assert kernel.steps[0].calls == 1


def test_a_plain_model_is_run_by_the_kernel_and_a_patched_one_by_itself(
    model: Llama, kernel: PlainKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text_model(model) is model
    with monkeypatch.context() as patch:
        patch.setattr(Llama, "plan", lambda *arguments: None)
        assert text_model(model) is None
    model.run_blocks = lambda x, *_: x  # type: ignore[method-assign]
    assert text_model(model) is None
    assert not Runner(model, Kernels(decoder=[kernel])).native


def test_only_a_block_that_is_known_is_taken(model: Llama, kernel: PlainKernel) -> None:
    model.get_submodule("layers.1.attention").q_norm = nn.Identity()
    runner = Runner(model, Kernels(decoder=[kernel]))
    assert list(runner.native) == [0, 2]
    assert runner.reasons == {1: "it has one of k_norm and q_norm"}


def test_a_block_with_a_number_that_kernels_do_not_know_is_not_taken(
    model: Llama, kernel: PlainKernel
) -> None:
    """As a switch would add it that says None where it is off."""
    block: Any
    for block, scale in zip(model.layers, (None, 0.5, None), strict=True):
        block.feed_forward.scale = scale
    runner = Runner(model, Kernels(decoder=[kernel]))
    assert list(runner.native) == [0, 2]
    assert runner.reasons == {1: "feed_forward has scale, which no kernel knows"}
    model.get_submodule("layers.2.attention")._scale = 0.5  # type: ignore[assignment]
    assert list(Runner(model, Kernels(decoder=[kernel])).native) == [0]


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("ffn_norm", (1,), "ffn_norm has the size (1,), expected (48,)"),
        ("attention.k_proj", (8, 48), "k_proj has the size (8, 48), expected (16, 48)"),
        ("feed_forward.w_up", (9, 48), "w_up has the size (9, 48), expected (100, 48)"),
    ],
)
def test_row_391_a_tensor_of_another_size_is_given_to_no_kernel(
    model: Llama, kernel: PlainKernel, name: str, size: tuple[int, ...], reason: str
) -> None:
    part = model.get_submodule(f"layers.1.{name}")
    part.weight = nn.Parameter(torch.ones(size), requires_grad=False)
    runner = Runner(model, Kernels(decoder=[kernel]))
    assert list(runner.native) == [0, 2]
    assert runner.reasons == {1: reason}


@pytest.mark.parametrize(
    ("owner", "name", "value", "reason"),
    [
        ("attention", "softcap", 0, "attention_softcap is 0"),
        ("attention", "softcap", False, "attention_softcap is False"),
        ("attention", "growth", 1.0, "query_scale_length is None"),
        ("attention", "num_heads", 4.0, "num_heads is 4.0"),
        ("attention", "scale", float("inf"), "attention_scale is inf"),
        ("", "residual_scale", -1, "residual_scale is -1"),
    ],
)
def test_row_405_a_number_that_no_configuration_has_is_given_to_no_kernel(
    model: Llama, kernel: PlainKernel, owner: str, name: str, value: object, reason: str
) -> None:
    setattr(model.get_submodule(f"layers.1.{owner}".rstrip(".")), name, value)
    runner = Runner(model, Kernels(decoder=[kernel]))
    assert list(runner.native) == [0, 2]
    assert runner.reasons[1].startswith(f"its {reason}")


def test_row_405_norms_with_the_epsilon_of_torch(model: Llama, kernel: PlainKernel) -> None:
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.eps = None  # type: ignore[assignment]
    assert Runner(model, Kernels(decoder=[kernel])).reasons[1].startswith("its eps is None")


class SwitchedKernel(PlainKernel):
    """Says that it knows switches. Its steps are never run."""

    def __init__(self, name: str, switches: Collection[str], takes: bool) -> None:
        super().__init__()
        self.name, self.switches, self.takes = name, switches, takes

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> DecoderStep | None:
        return super().bind(blocks, shape) if self.takes else None


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        ([], "no kernel knows its activation, residual_scale"),
        ([("one", {"activation"}, True)], "no kernel knows its residual_scale"),
        (
            [("one", {"activation"}, True), ("two", {"residual_scale"}, True)],
            "one does not know its residual_scale; two does not know its activation",
        ),
        (
            [("one", {"activation", "residual_scale"}, False), ("two", {"activation"}, True)],
            "one does not take its weights on this device; two does not know its residual_scale",
        ),
        (
            [("one", {"activation", "residual_scale"}, False)],
            "no kernel takes its weights on this device",
        ),
    ],
)
def test_row_384_reports_say_of_each_kernel_why_it_takes_no_block(
    kernels: list[tuple[str, set[str], bool]], reason: str
) -> None:
    model = DecoderKernelSuite().model(activation="gelu", residual_scale=0.5)
    runner = Runner(model, Kernels(decoder=[SwitchedKernel(*each) for each in kernels]))
    assert runner.reasons == dict.fromkeys(range(3), reason)


def test_a_model_is_run_by_the_kernels_that_it_was_given(kernel: PlainKernel) -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32", kernels=Kernels())
    config = GenerationConfig.greedy(max_new_tokens=4)

    def native() -> dict[int, NativeRun]:
        runner = runner_of(model)
        assert isinstance(runner, Runner)
        return runner.native

    assert not native() and not kernels_in_use(model).keys() - {None}
    plain = TextGenerator(model, tokenizer).generate("Once upon a time", config)
    set_kernels(model, Kernels(decoder=[kernel]))
    assert [run.kernel for run in native().values()] == [kernel]
    assert decoder_in_use(model) is kernel
    assert TextGenerator(model, tokenizer).generate("Once upon a time", config) == plain
    set_kernels(model, None)
    installed = Kernels.installed().decoder
    assert {type(run.kernel) for run in native().values()} <= set(map(type, installed))
