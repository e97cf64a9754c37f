"""Experts: each token goes through those that its router scores best, and no other weight is read."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lolama_core import Kernels, Llama, LlamaConfig, TextGenerator, set_kernels, slower_blocks
from lolama_core.model.experts import Experts
from lolama_core.model.feed_forward import FeedForward
from lolama_core.protocols import CausalLM
from lolama_core.runtime.model_identity import model_identity
from lolama_core.runtime.recorded_step import can_be_recorded
from lolama_core.runtime.runner import runner_of

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 2,
    "hidden_dim": 64,
    "max_seq_len": 64,
    "num_experts": 6,
    "experts_per_token": 2,
    "expert_dim": 24,
}


def config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**{**SHAPE, **changes})


def experts(**changes: Any) -> Experts:
    torch.manual_seed(0)
    return Experts(config(**changes))


def mixtures(model: Llama) -> list[Experts]:
    return [part for part in model.modules() if isinstance(part, Experts)]


def by_hand(layer: Experts, x: Tensor) -> Tensor:
    """(N, D) → (N, D), a token at a time, as the papers have it."""
    found = []
    for token in x:
        scores = [math.exp(float(row @ token)) for row in layer.router.weight]
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: layer.per_token]
        total = sum(scores[place] for place in best) if layer.normalize else sum(scores)
        answer = sum(layer.experts[place](token) * scores[place] / total for place in best)
        if layer.shared_expert is not None and layer.shared_gate is not None:
            gate = torch.sigmoid(layer.shared_gate.weight[0] @ token)
            answer = answer + gate * layer.shared_expert(token)
        found.append(cast(Tensor, answer))
    return torch.stack(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalize_expert_weights": True},
        {"shared_expert_dim": 40, "experts_per_token": 6},
        {"num_experts": 1, "experts_per_token": 1},
        {"mlp_bias": True, "activation": "gelu"},
    ],
    ids=str,
)
@torch.inference_mode()
def test_it_is_the_weighted_sum_of_the_best_experts(changes: dict[str, Any]) -> None:
    layer = experts(**changes)
    x = torch.randn(3, 7, 32)
    torch.testing.assert_close(layer(x), by_hand(layer, x.flatten(0, 1)).view_as(x))


def used_by(layer: Experts, x: Tensor) -> set[int]:
    return set(layer.route(x.flatten(0, -2))[1].flatten().tolist())


@torch.inference_mode()
def test_row_338_experts_that_no_token_chose_are_not_read() -> None:
    layer = experts()
    x = torch.randn(1, 1, 32)
    expected, used = layer(x), used_by(layer, x)
    assert len(used) == 2
    for place, expert in enumerate(layer.experts):
        if place not in used:
            for parameter in expert.parameters():
                parameter.fill_(float("nan"))
    assert torch.equal(layer(x), expected)
    for parameter in layer.experts[min(used)].parameters():
        parameter.fill_(float("nan"))
    assert layer(x).isnan().all()


def test_each_expert_runs_once_however_many_tokens_chose_it() -> None:
    layer, runs = experts(), []
    for place, expert in enumerate(layer.experts):
        expert.register_forward_hook(
            lambda _module, inputs, _output, place=place: runs.append((place, len(inputs[0])))
        )
    x = torch.randn(4, 50, 32)
    layer(x)
    assert [place for place, _ in runs] == sorted(used_by(layer, x))
    assert sum(count for _, count in runs) == 2 * 200


@torch.inference_mode()
def test_experts_that_score_alike_are_chosen_as_torch_does() -> None:
    layer = experts()
    layer.router.weight.zero_()
    x = torch.randn(1, 9, 32)
    weights, chosen = layer.route(x[0])
    assert torch.equal(weights, torch.full((9, 2), 1 / 6))
    assert torch.equal(chosen, torch.full((9, 6), 1 / 6).topk(2).indices)


def test_gradients_reach_the_router_and_the_experts_that_were_chosen() -> None:
    layer = experts(shared_expert_dim=16)
    x = torch.randn(1, 1, 32, requires_grad=True)
    used = used_by(layer, x)
    layer(x).square().sum().backward()
    assert x.grad is not None and bool(x.grad.any())
    for place, expert in enumerate(layer.experts):
        for parameter in expert.parameters():
            assert (parameter.grad is not None and bool(parameter.grad.any())) is (place in used)
    for part in (layer.router, layer.shared_gate, layer.shared_expert):
        assert part is not None
        for parameter in part.parameters():
            assert parameter.grad is not None and bool(parameter.grad.any())


def test_gradients_are_those_of_the_sum_by_hand() -> None:
    layer = experts(normalize_expert_weights=True).double()
    x = torch.randn(5, 32, dtype=torch.float64)
    weights, chosen = layer.route(x)
    together = torch.stack([expert(x) for expert in layer.experts], dim=1)  # (N, E, D)
    picked = together.gather(1, chosen[..., None].expand(-1, -1, 32))
    wanted = torch.autograd.grad(
        (picked * weights[..., None]).sum(1).square().sum(), list(layer.experts.parameters())
    )
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.experts.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_layers_that_are_dense() -> None:
    model = Llama(config(num_layers=3, dense_layers=(0, 2)))
    kinds = [type(block.feed_forward) for block in model.layers]
    assert kinds == [FeedForward, Experts, FeedForward]
    assert model.kinds == (model.config,)  # masks and angles are of one kind


@torch.inference_mode()
def test_kernels_that_do_not_know_it_decline_it() -> None:
    model = Llama(config(dense_layers=(0,))).eval()
    set_kernels(model, Kernels())
    reasons = slower_blocks(model)
    assert reasons[1] == "no kernel knows its num_experts"
    assert reasons[0] == "no kernel takes its weights on this device"


def other_part(mixture: Any) -> None:
    mixture.experts[3].bonus = torch.nn.Identity()


def other_activation(mixture: Any) -> None:
    mixture.experts[0].activation = "gelu"


def other_expert(mixture: Any) -> None:
    mixture.experts[1] = torch.nn.Identity()


def other_list(mixture: Any) -> None:
    mixture.experts = torch.nn.Sequential(*mixture.experts)


def half_a_shared_expert(mixture: Any) -> None:
    mixture.shared_expert = None


def other_router(mixture: Any) -> None:
    mixture.router.register_forward_hook(lambda *_: None)


def narrower_expert(mixture: Any) -> None:
    mixture.experts[2] = FeedForward(LlamaConfig(**{**SHAPE, "hidden_dim": 8}))


def fewer_scores(mixture: Any) -> None:
    mixture.router.weight = torch.nn.Parameter(mixture.router.weight[:5].detach().clone())


def more_for_each_token(mixture: Any) -> None:
    mixture.per_token = 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (narrower_expert, "w_gate of expert 2 has the size (8, 32), expected (24, 32)"),
        (fewer_scores, "router has the size (5, 32), expected (6, 32)"),
        (more_for_each_token, "it asks for 7 of 6 experts"),
        (other_part, "expert 3 has bonus, which no kernel knows"),
        (other_activation, "its experts differ in activation"),
        (other_expert, "expert 1 is an Identity, not a FeedForward"),
        (other_list, "its experts are not what a mixture has"),
        (half_a_shared_expert, "it has one of shared_expert and shared_gate"),
        (other_router, "router has a hook or a function of its own"),
    ],
)
@torch.inference_mode()
def test_kernels_are_given_no_mixture_that_does_anything_else(change: Any, reason: str) -> None:
    model = Llama(config(shared_expert_dim=16)).eval()
    set_kernels(model, Kernels())
    change(mixtures(model)[1])
    assert slower_blocks(model)[1] == reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_decoding_step_reads_no_other_expert(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = Llama(config(num_experts=32)).eval().to(dtype)
    prompt, answer = [3, 4, 5], 12
    read: set[tuple[int, int]] = set()
    hooks = [
        expert.register_forward_hook(lambda *_, key=(layer, place): read.add(key))
        for layer, mixture in enumerate(mixtures(model))
        for place, expert in enumerate(mixture.experts)
    ]
    ids = TextGenerator(model).generate(prompt, temperature=0.0, max_new_tokens=answer).ids
    for hook in hooks:
        hook.remove()
    assert 0 < len(read) < 64
    for layer, mixture in enumerate(mixtures(model)):
        for place, expert in enumerate(mixture.experts):
            if (layer, place) not in read:
                for parameter in expert.parameters():
                    parameter.fill_(float("nan"))
    assert TextGenerator(model).generate(prompt, temperature=0.0, max_new_tokens=answer).ids == ids


@pytest.mark.parametrize("name", ["experts.5.w_up.weight", "router.weight", "shared_gate.weight"])
@torch.inference_mode()
def test_the_identity_of_a_model_covers_its_experts(name: str) -> None:
    model = Llama(config(shared_expert_dim=16))
    before = model_identity(model)
    weight = model.get_parameter(f"layers.1.feed_forward.{name}")
    weight[0, 0] += 1
    assert model_identity(model) != before
    weight[0, 0] -= 1
    mixtures(model)[1].normalize = True
    assert model_identity(model) != before


class OnCuda:
    """A model that says it is on a GPU."""

    device = torch.device("cuda")


class ModuleOnCuda(torch.nn.Module):
    """The same as a module."""

    device = torch.device("cuda")

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part = part


def test_row_337_steps_that_ask_the_host_which_experts_run_are_not_recorded() -> None:
    assert can_be_recorded(cast(CausalLM, OnCuda()))
    assert can_be_recorded(cast(CausalLM, ModuleOnCuda(FeedForward(config()))))
    assert not can_be_recorded(cast(CausalLM, ModuleOnCuda(experts())))
    assert not can_be_recorded(runner_of(Llama(config())))


def test_steps_with_a_hook_are_not_recorded() -> None:
    whole = ModuleOnCuda(FeedForward(config()))
    handle = whole.part.register_forward_hook(lambda *_: None)
    assert not can_be_recorded(cast(CausalLM, whole))
    handle.remove()
    assert can_be_recorded(cast(CausalLM, whole))
