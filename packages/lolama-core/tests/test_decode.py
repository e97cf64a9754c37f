"""When a kernel runs a decoding step, and when the blocks do: the kernel here is the obvious computation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core import Llama
from lolama_core.linear import Linear
from lolama_core.protocols import DecoderKernel, DecoderStep
from lolama_core.protocols.decoder_kernel import (
    BlockWeights,
    DecoderShape,
    LinearWeights,
    NewPositions,
)
from lolama_core.testing.decoder_kernel import DecoderKernelSuite


class PlainStep:
    """New positions one by one, and head by head."""

    max_rows = 3
    reads_places = False

    def __init__(
        self,
        blocks: Sequence[BlockWeights],
        shape: DecoderShape,
        prompt_dtype: torch.dtype | None,
    ) -> None:
        self.blocks, self.shape, self.prompt_dtype, self.calls = blocks, shape, prompt_dtype, 0
        self.positions = 0

    def __call__(
        self, new: NewPositions, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Tensor:
        assert not isinstance(new.starts, Tensor)
        self.calls += 1
        self.positions += len(new.x)
        places = [
            (row, start + i)
            for row, start, count in zip(new.rows, new.starts, new.counts, strict=True)
            for i in range(count)
        ]
        hidden = new.x.clone()
        for layer, block in enumerate(self.blocks):
            for i, (row, place) in enumerate(places):
                first = max(0, place + 1 - new.window) if new.window else 0
                stored = keys[layer][row], values[layer][row]
                hidden[i] += self.attention(
                    block, hidden[i], new.cos[i], new.sin[i], *stored, place, first
                )
            normed = self.norm(hidden, block.ffn_norm)
            gate = F.silu(product(normed, block.w_gate)) * product(normed, block.w_up)
            hidden += product(gate, block.w_down)
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

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.shape.eps).sqrt() * weight


def product(x: Tensor, linear: LinearWeights) -> Tensor:
    result = x @ linear.weight.float().T
    return result if linear.bias is None else result + linear.bias


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class PlainKernel:
    """Takes float32, bfloat16 and float16 on the CPU, and keeps the steps that it made."""

    name = "plain"

    def __init__(self, prompt_dtype: torch.dtype | None = None) -> None:
        self.steps: list[PlainStep] = []
        self.prompt_dtype = prompt_dtype

    def describe(self) -> str:
        return "for tests"

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> DecoderStep | None:
        weight = blocks[0].q_proj.weight
        if weight.device.type != "cpu" or weight.dtype == torch.float64:
            return None
        self.steps.append(PlainStep(blocks, shape, self.prompt_dtype))
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
def model(kernel: PlainKernel) -> Llama:
    made = DecoderKernelSuite().model()
    made.use_kernels([kernel])
    return made


def step(model: Llama, rows: int = 1) -> Tensor:
    """One decoding step after three positions."""
    with torch.inference_mode():
        cache = model.make_cache(rows, 8)
        model.forward_embeds(model.embed(torch.ones(rows, 3, dtype=torch.int64)), cache)
        cache.advance([3] * rows)
        return model.forward_embeds(model.embed(torch.full((rows, 1), 5)), cache)


def test_runs_steps_of_a_few_rows_and_nothing_else(model: Llama, kernel: PlainKernel) -> None:
    step(model)
    assert kernel.steps[0].calls == 1  # not the prompt of three positions
    step(model, rows=3)
    assert kernel.steps[0].calls == 2
    step(model, rows=4)
    assert kernel.steps[0].calls == 2


def swap_a_linear(model: Llama) -> None:
    block = model.get_submodule("layers.1.feed_forward")
    block.w_up = nn.Linear(48, 100, bias=False)


def add_to_a_linear(model: Llama) -> None:
    class Added(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    added = Added(100, 48, bias=False)
    model.get_submodule("layers.2.feed_forward").w_down = added


def swap_a_block(model: Llama) -> None:
    other = copy.deepcopy(model.layers[1]).requires_grad_(False)
    other.get_parameter("attention_norm.weight").mul_(2)
    model.layers[1] = other


def move_the_weights(model: Llama) -> None:
    model.double().float()
    model.get_parameter("layers.0.attention.q_proj.weight").mul_(2)


def watch(model: Llama) -> None:
    def doubled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * 2

    model.get_submodule("layers.1.attention").register_forward_hook(doubled)


def watch_before(model: Llama) -> None:
    def negated(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (-inputs[0], *inputs[1:])

    model.get_submodule("layers.0.ffn_norm").register_forward_pre_hook(negated)


def patch_a_forward(model: Llama) -> None:
    norm = model.get_submodule("layers.0.ffn_norm")
    original = norm.forward
    norm.forward = lambda x: original(x) * 3


def watch_a_block(model: Llama) -> None:
    model.layers[1].register_forward_hook(lambda module, inputs, output: output * 2)


@pytest.mark.parametrize(
    "change",
    [
        swap_a_linear,
        add_to_a_linear,
        swap_a_block,
        move_the_weights,
        watch,
        watch_before,
        patch_a_forward,
        watch_a_block,
    ],
)
def test_a_change_of_the_model_is_seen(
    model: Llama, kernel: PlainKernel, change: Callable[[Llama], None]
) -> None:
    before = step(model)
    change(model)
    changed = step(model)
    assert not torch.allclose(changed, before, atol=1e-3)
    model.use_kernels([])
    torch.testing.assert_close(changed, step(model))


def test_a_change_in_place_is_seen(model: Llama, kernel: PlainKernel) -> None:
    before = step(model)
    model.get_parameter("layers.1.ffn_norm.weight").data.mul_(2)
    changed = step(model)
    assert kernel.steps[0].calls == 2
    assert not torch.allclose(changed, before, atol=1e-3)
    model.use_kernels([])
    torch.testing.assert_close(changed, step(model), atol=1e-5, rtol=1e-5)


def test_gradients_go_through_the_blocks(model: Llama, kernel: PlainKernel) -> None:
    embeds = torch.randn(1, 1, 48, requires_grad=True)
    logits = model.forward_embeds(embeds, model.make_cache(1, 4))
    [gradient] = torch.autograd.grad(logits.sum(), embeds)
    assert gradient.abs().sum() > 0
    assert kernel.steps[0].calls == 0


def test_a_copy_starts_without_a_kernel(model: Llama) -> None:
    expected = step(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.decode_step is None
        torch.testing.assert_close(step(other), expected, atol=1e-5, rtol=1e-5)


def test_a_model_that_is_not_plain_is_not_bound(kernel: PlainKernel) -> None:
    model = DecoderKernelSuite().model()
    swap_a_linear(model)
    model.use_kernels([kernel])
    assert model.decode_step is None


def test_a_prompt_goes_to_a_step_that_takes_its_cache_and_padding_does_not() -> None:
    kernel = PlainKernel(torch.float32)
    model = DecoderKernelSuite().model()
    model.use_kernels([kernel])
    ids = torch.randint(0, model.vocab_size, (3, 5))
    with torch.inference_mode():
        cache = model.make_cache(3, 8)
        model.forward_embeds(model.embed(ids), cache, [5, 2, 3])
        assert (kernel.steps[0].calls, kernel.steps[0].positions) == (1, 10)
        narrow = type(cache)(
            num_layers=3, batch_size=3, num_kv_heads=2, capacity=8, head_dim=8, dtype=torch.bfloat16
        )
        model.forward_embeds(model.embed(ids), narrow, [5, 2, 3])
    assert kernel.steps[0].calls == 1


def test_rows_from_here_and_there_of_a_cache(kernel: PlainKernel, model: Llama) -> None:
    ids = torch.tensor([[3], [4]])
    results = []
    for kernels in ([], [kernel]):
        model.use_kernels(kernels)
        cache = model.make_cache(4, 8)
        with torch.inference_mode():
            results.append(model.forward_embeds(model.embed(ids), cache.rows([3, 1])))
    assert kernel.steps[-1].calls == 1
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)
