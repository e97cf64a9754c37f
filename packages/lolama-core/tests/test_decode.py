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
from lolama_core.protocols.decoder_kernel import BlockWeights, DecoderShape, LinearWeights
from lolama_core.testing.decoder_kernel import DecoderKernelSuite


class PlainStep:
    """A decoding step, row by row and head by head."""

    max_rows = 3
    reads_places = False

    def __init__(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> None:
        self.blocks, self.shape, self.calls = blocks, shape, 0

    def __call__(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        first_row: int,
        starts: Sequence[int] | Tensor,
        first_keys: Sequence[int] | Tensor,
    ) -> Tensor:
        assert not isinstance(starts, Tensor) and not isinstance(first_keys, Tensor)
        self.calls += 1
        hidden = x.clone()
        for layer, block in enumerate(self.blocks):
            for row, (start, first) in enumerate(zip(starts, first_keys, strict=True)):
                stored = keys[layer][first_row + row], values[layer][first_row + row]
                hidden[row] += self.attention(
                    block, hidden[row], cos[row], sin[row], *stored, start, first
                )
            normed = self.norm(hidden, block.ffn_norm)
            gate = F.silu(product(normed, block.w_gate)) * product(normed, block.w_up)
            hidden += product(gate, block.w_down)
        return hidden

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

    def __init__(self) -> None:
        self.steps: list[PlainStep] = []

    def describe(self) -> str:
        return "for tests"

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> DecoderStep | None:
        weight = blocks[0].q_proj.weight
        if weight.device.type != "cpu" or weight.dtype == torch.float64:
            return None
        self.steps.append(PlainStep(blocks, shape))
        return self.steps[-1]


class TestPlainKernel(DecoderKernelSuite):
    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        return PlainKernel()


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
