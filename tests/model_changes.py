"""Ways to change a model after it has run, and the small models that are changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lolama.model import quantize_model_int8
from lolama_core import Llama, LlamaConfig
from lolama_core.model.attention import Attention
from lolama_core.model.experts import Experts, Router
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.linear import Linear
from lolama_core.model.masks import PassPlan
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols import KVCache
from lolama_vision import LLaVA
from lolama_vision.config import VisionConfig, VLMConfig
from lolama_vision.projector import Projector

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 64,
    "num_heads": 4,
    "num_kv_heads": 4,
    "num_layers": 3,
    "hidden_dim": 176,
    "max_seq_len": 128,
}


def part(model: Llama, path: str) -> Any:
    return model.get_submodule(path)


def weight_owner(model: Llama) -> Any:
    """A module with a weight that may be any numbers: a linear, or of an int8 model a norm."""
    linear = part(model, "layers.1.attention.q_proj")
    return linear if isinstance(linear, Linear) else part(model, "layers.1.attention_norm")


def replace_a_weight(model: Llama) -> None:
    owner = weight_owner(model)
    owner.weight = nn.Parameter(torch.randn_like(owner.weight), requires_grad=False)


def assign_a_state(model: Llama) -> None:
    owner = weight_owner(model)
    owner.load_state_dict({"weight": torch.randn_like(owner.weight)}, assign=True, strict=False)


def write_in_place(model: Llama) -> None:
    weight_owner(model).weight.mul_(-2)


def scale_the_embedding(model: Llama) -> None:
    model.embed_tokens.weight.mul_(-2)


def write_through_data(model: Llama) -> None:
    weight_owner(model).weight.data.mul_(-2)


def give_other_data(model: Llama) -> None:
    owner = weight_owner(model)
    owner.weight.data = torch.randn_like(owner.weight)


def add_a_bias(model: Llama) -> None:
    projection = part(model, "layers.2.feed_forward.w_down")
    projection.bias = nn.Parameter(torch.ones(64), requires_grad=False)


def write_a_buffer(model: Llama) -> None:
    model.rope.inv_freq.mul_(3)


def replace_a_buffer(model: Llama) -> None:
    model.rope.inv_freq = model.rope.inv_freq * 3


def set_an_epsilon(model: Llama) -> None:
    part(model, "layers.0.attention_norm").eps = 10.0


def change_a_class(model: Llama) -> None:
    class Tripled(RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 3

    part(model, "layers.1.ffn_norm").__class__ = Tripled


def patch_an_object(model: Llama) -> None:
    norm = part(model, "layers.0.ffn_norm")
    original = norm.forward
    norm.forward = lambda x: original(x) * 3


def patch_a_method_of_an_object(model: Llama) -> None:
    attention = part(model, "layers.1.attention")
    original = attention.split_heads
    attention.split_heads = lambda x: original(x).flip(1)


def patch_what_a_call_runs(model: Llama) -> None:
    norm = part(model, "layers.0.ffn_norm")
    original = norm._call_impl
    norm._call_impl = lambda x: original(x) * 3


def patch_a_class(model: Llama) -> None:
    original = FeedForward.forward
    UNDO.append(lambda: setattr(FeedForward, "forward", original))
    FeedForward.forward = lambda self, x: original(self, x) * -1  # type: ignore[method-assign]


def hook_after(model: Llama) -> None:
    part(model, "layers.1.attention").register_forward_hook(lambda _, __, output: output * 2)


def hook_before(model: Llama) -> None:
    norm = part(model, "layers.0.ffn_norm")
    norm.register_forward_pre_hook(lambda _, inputs: (-inputs[0], *inputs[1:]))


def hook_a_block(model: Llama) -> None:
    model.layers[1].register_forward_hook(lambda _, __, output: output * 2)


def hook_all_modules(model: Llama) -> None:
    def doubled(module: nn.Module, _: Any, output: Any) -> Any:
        return output * 2 if isinstance(module, FeedForward) else None

    UNDO.append(nn.modules.module.register_module_forward_hook(doubled).remove)


def parametrized(model: Llama) -> None:
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    parametrize.register_parametrization(weight_owner(model), "weight", Doubled())


def cut_the_layers(model: Llama) -> None:
    model.layers = nn.ModuleList(list(model.layers)[:2])


def pop_a_layer(model: Llama) -> None:
    del model.layers[1]


def swap_two_layers(model: Llama) -> None:
    model.layers[0], model.layers[2] = model.layers[2], model.layers[0]


def reverse_the_layers(model: Llama) -> None:
    model.layers = nn.ModuleList(reversed(list(model.layers)))


def repeat_a_layer_under_its_own_place(model: Llama) -> None:
    copied = cast(Any, copy.deepcopy(model.layers[0]))
    copied.attention.layer = 1
    model.layers[1] = copied


class GatedAttention(Attention):
    """An attention with parameters of its own."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.gate = nn.Parameter(torch.full((config.d_model,), 0.3), requires_grad=False)

    def forward(self, x: Tensor, plan: PassPlan, cache: KVCache | None) -> Tensor:
        """Scaled."""
        return super().forward(x, plan, cache) * self.gate.to(x.dtype)


def swap_an_attention(model: Llama) -> None:
    old = part(model, "layers.1.attention")
    made = GatedAttention(model.config, 1).eval()
    for name, child in old.named_children():
        setattr(made, name, child)
    part(model, "layers.1").attention = made


class LeakyFeedForward(FeedForward):
    """A feed-forward with a parameter of its own."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.leak = nn.Parameter(torch.tensor(5.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Plus a part of the input."""
        return super().forward(x) + self.leak.to(x.dtype) * x


def swap_a_feed_forward(model: Llama) -> None:
    old, made = part(model, "layers.2.feed_forward"), LeakyFeedForward(model.config).eval()
    for name, child in old.named_children():
        setattr(made, name, child)
    part(model, "layers.2").feed_forward = made


def patch_a_method_of_a_class(model: Llama) -> None:
    before = Attention.split_heads
    UNDO.append(lambda: setattr(Attention, "split_heads", before))
    Attention.split_heads = lambda self, x: before(self, x).flip(1)  # type: ignore[method-assign]


def norm_queries_and_keys(model: Llama) -> None:
    """Add Qwen3's norms to `Attention`, as somebody would who knows of nothing else."""

    def split_and_norm(self: Attention, x: Tensor) -> Tensor:
        heads = x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        norm = getattr(self, "q_norm", None)
        return heads if norm is None else norm(heads)

    before = Attention.split_heads
    UNDO.append(lambda: setattr(Attention, "split_heads", before))
    Attention.split_heads = split_and_norm  # type: ignore[method-assign]
    for block in model.layers:
        norm = RMSNorm(model.config.head_dim, 1e-5)
        norm.weight.requires_grad_(False).uniform_(0.5, 2.0)
        cast(Any, block).attention.q_norm = norm


def other_dtype_in_one_part(model: Llama) -> None:
    weight_owner(model).half()


def view_a_weight_transposed(model: Llama) -> None:
    owner = weight_owner(model)
    owner.weight.data = owner.weight.data.t() if owner.weight.dim() == 2 else owner.weight.flip(0)


def to_bfloat16(model: Llama) -> None:
    model.to(torch.bfloat16)


def to_half(model: Llama) -> None:
    model.half()


def to_double(model: Llama) -> None:
    model.double()


def to_meta_and_back(model: Llama) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frequencies = model.rope.inv_freq.clone()
    model.to("meta").to_empty(device="cpu")
    model.load_state_dict(state)
    model.rope.inv_freq.copy_(frequencies)
    part(model, "layers.1.attention_norm").weight.mul_(2)


def wrap_with_lora(model: Llama) -> None:
    class Lora(nn.Module):
        def __init__(self, inner: nn.Module, inputs: int, outputs: int) -> None:
            super().__init__()
            self.inner = inner
            self.down = nn.Linear(inputs, 4, bias=False).requires_grad_(False)
            self.up = nn.Linear(4, outputs, bias=False).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.inner(x)
            added: Tensor = self.up(self.down(x.float()))
            return found + added.to(found.dtype)

    for path, inputs, outputs in (("attention.v_proj", 64, 64), ("feed_forward.w_up", 64, 176)):
        owner, _, name = f"layers.1.{path}".rpartition(".")
        setattr(part(model, owner), name, Lora(part(model, f"layers.1.{path}"), inputs, outputs))


def compile_a_block(model: Llama) -> None:
    # To trace a block of int8 linears takes seconds. Untraced it is no less a compiled call, which must be
    # noticed; `test_a_compiled_int8_linear_is_seen` traces one of the linears.
    if not isinstance(part(model, "layers.1.attention.q_proj"), Linear):
        torch.compiler.set_stance("force_eager")
        UNDO.append(lambda: torch.compiler.set_stance("default"))
    model.layers[1].compile(backend="eager")
    part(model, "layers.1.attention_norm").weight.mul_(2)


def replace_a_linear(model: Llama) -> None:
    made = nn.Linear(64, 176, bias=False).requires_grad_(False)
    part(model, "layers.1.feed_forward").w_up = made


def replace_the_head(model: Llama) -> None:
    model.lm_head = cast(Any, nn.Linear(64, 96, bias=True).requires_grad_(False))


def override_a_method(model: Llama) -> None:
    original = model.run_blocks
    model.run_blocks = lambda x, slots, cache: original(-x, slots, cache)  # type: ignore[method-assign]


CHANGES: list[Callable[[Llama], None]] = [
    replace_a_weight,
    assign_a_state,
    write_in_place,
    scale_the_embedding,
    write_through_data,
    give_other_data,
    add_a_bias,
    write_a_buffer,
    replace_a_buffer,
    set_an_epsilon,
    change_a_class,
    patch_an_object,
    patch_a_method_of_an_object,
    patch_what_a_call_runs,
    patch_a_class,
    hook_after,
    hook_before,
    hook_a_block,
    hook_all_modules,
    parametrized,
    cut_the_layers,
    pop_a_layer,
    swap_two_layers,
    reverse_the_layers,
    repeat_a_layer_under_its_own_place,
    swap_an_attention,
    swap_a_feed_forward,
    patch_a_method_of_a_class,
    norm_queries_and_keys,
    other_dtype_in_one_part,
    view_a_weight_transposed,
    to_bfloat16,
    to_half,
    to_double,
    to_meta_and_back,
    wrap_with_lora,
    compile_a_block,
    replace_a_linear,
    replace_the_head,
    override_a_method,
]
SAME_NUMBERS = {other_dtype_in_one_part, to_half, to_double, to_bfloat16}
"""What they change is the rounding."""

UNDO: list[Callable[[], None]] = []


def random_model(**switches: Any) -> Llama:
    torch.manual_seed(5)
    model = Llama(LlamaConfig(**SHAPE, **switches)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(
            1.0 if parameter.dim() == 1 else 0.0, 0.3 if parameter.dim() == 1 else 0.15
        )
    return model


def int8_model() -> Llama:
    model = random_model()
    quantize_model_int8(model)
    return model


def patch_a_route(mixture: Experts) -> None:
    original = mixture.route

    def doubled(tokens: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = original(tokens)
        return weights * 2, chosen

    mixture.route = doubled  # type: ignore[method-assign]


def patch_the_class_of_routers(mixture: Experts) -> None:
    original = Router.forward
    UNDO.append(lambda: setattr(Router, "forward", original))
    Router.forward = lambda self, x: -original(self, x)  # type: ignore[method-assign]


def patch_an_activation(mixture: Experts) -> None:
    for expert in mixture.experts:
        cast(Any, expert).activate = torch.tanh


def hook_the_shared_expert(mixture: Experts) -> None:
    cast(Any, mixture.shared_expert).register_forward_hook(lambda _, __, output: output * -2)


def swap_experts(mixture: Experts) -> None:
    mixture.experts = nn.ModuleList(reversed(list(mixture.experts)))


def share_an_expert(mixture: Experts) -> None:
    mixture.experts = nn.ModuleList([mixture.experts[0]] * len(mixture.experts))


def replace_a_router(mixture: Experts) -> None:
    mixture.router = cast(Any, nn.Linear(64, 6).requires_grad_(False))


def narrow_an_expert(mixture: Experts) -> None:
    for expert in cast(Any, mixture.experts):
        for linear in (expert.w_gate, expert.w_up):
            linear.weight = nn.Parameter(linear.weight[:8].clone(), requires_grad=False)
        narrow = expert.w_down.weight[:, :8].clone()
        expert.w_down.weight = nn.Parameter(narrow, requires_grad=False)


def choose_one_more(mixture: Experts) -> None:
    mixture.per_token = 3


def drop_the_shared_expert(mixture: Experts) -> None:
    mixture.shared_expert = None


EXPERT_CHANGES: list[Callable[[Experts], None]] = [
    patch_a_route,
    patch_the_class_of_routers,
    patch_an_activation,
    hook_the_shared_expert,
    swap_experts,
    share_an_expert,
    replace_a_router,
    narrow_an_expert,
    choose_one_more,
    drop_the_shared_expert,
]


def scale_a_weight_of_the_encoder(model: LLaVA) -> None:
    model.get_parameter("vision_tower.layers.0.attention.v_proj.weight").mul_(-2)


def write_the_encoder_through_data(model: LLaVA) -> None:
    model.get_parameter("vision_tower.layers.1.feed_forward.fc1.weight").data.mul_(-2)


def projector_of(model: LLaVA) -> Projector:
    assert isinstance(model.projector, Projector)
    return model.projector


def replace_a_weight_of_the_projector(model: LLaVA) -> None:
    linear = projector_of(model).linear_2
    linear.weight = nn.Parameter(torch.randn_like(linear.weight), requires_grad=False)


def add_to_a_bias_of_the_projector(model: LLaVA) -> None:
    bias = projector_of(model).linear_1.bias
    assert bias is not None
    bias.add_(3)


def set_an_epsilon_of_the_encoder(model: LLaVA) -> None:
    cast(Any, model.get_submodule("vision_tower.layers.0.ffn_norm")).eps = 50.0


def hook_the_encoder(model: LLaVA) -> None:
    model.vision_tower.layers[0].register_forward_hook(lambda _, __, output: output * -2)


def pop_a_layer_of_the_encoder(model: LLaVA) -> None:
    del model.vision_tower.layers[1]


def patch_an_object_of_the_encoder(model: LLaVA) -> None:
    attention = cast(Any, model.get_submodule("vision_tower.layers.1.attention"))
    original = attention.forward
    attention.forward = lambda x: original(x) * -3


def patch_a_class_of_the_encoder(model: LLaVA) -> None:
    kind = cast(Any, type(model.projector))
    original = kind.forward
    UNDO.append(lambda: setattr(kind, "forward", original))
    kind.forward = lambda self, features: -original(self, features)


def replace_a_linear_of_the_encoder(model: LLaVA) -> None:
    owner = cast(Any, model.get_submodule("vision_tower.layers.0.feed_forward"))
    owner.fc2 = nn.Linear(48, 32).requires_grad_(False)


def parametrize_the_projector(model: LLaVA) -> None:
    class Scaled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * -8

    parametrize.register_parametrization(projector_of(model).linear_1, "weight", Scaled())


ENCODER_CHANGES: list[Callable[[LLaVA], None]] = [
    scale_a_weight_of_the_encoder,
    write_the_encoder_through_data,
    replace_a_weight_of_the_projector,
    add_to_a_bias_of_the_projector,
    set_an_epsilon_of_the_encoder,
    hook_the_encoder,
    pop_a_layer_of_the_encoder,
    patch_an_object_of_the_encoder,
    patch_a_class_of_the_encoder,
    replace_a_linear_of_the_encoder,
    parametrize_the_projector,
]
IMAGE_TOKEN = 90


def seeing_model(text: Llama, *, bidirectional: bool = False) -> LLaVA:
    """A model of pictures of 28 pixels a side around ``text``; their positions may see each other."""
    torch.manual_seed(6)
    encoder = VisionConfig(
        image_size=28, patch_size=14, width=32, num_layers=3, num_heads=2, mlp_dim=48
    )
    config = VLMConfig(
        vision_config=encoder,
        text_config=text.config.to_json(),
        image_token_id=IMAGE_TOKEN,
        bidirectional_pictures=bidirectional,
    )
    model = LLaVA(config, text).eval().requires_grad_(False)
    for name, parameter in (
        *model.vision_tower.named_parameters(),
        *model.projector.named_parameters(),
    ):
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.normal_(around, 0.3)
    return model
