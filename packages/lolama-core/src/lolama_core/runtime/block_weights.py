"""What kernels read of a block: its weights, and the numbers that these do not tell."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.experts import Experts
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.linear import Linear
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols.checks import is_integer, is_number, kind_of, shown
from lolama_core.protocols.decoder_kernel import (
    BlockWeights,
    DecoderShape,
    FeedForwardWeights,
    HasLinearWeights,
    LinearWeights,
    MixtureWeights,
)
from lolama_core.runtime.known import (
    OF_ATTENTION,
    OF_NETWORK,
    UnknownPart,
    name_in,
    networks_of,
    norms_of,
)

_COUNTS = ("num_heads", "num_kv_heads", "head_dim")
_SCALES = ("attention_scale", "residual_scale", "attention_softcap", "query_scale_beta")


def block_weights(block: Block) -> tuple[BlockWeights, DecoderShape]:
    """What a kernel reads of a block that `check_block` knows.

    Raises:
        UnknownPart: if its numbers, sizes or linears are of a kind that no kernel reads.
    """
    attention, feed_forward, norms = block.attention, block.feed_forward, norms_of(block)
    eps = {norm.eps for norm in norms.values() if isinstance(norm, RMSNorm)}
    if len(eps) != 1:
        raise UnknownPart("its norms differ in eps")
    weights: dict[str, Any] = {
        name: norm.weight if isinstance(norm, RMSNorm) else None for name, norm in norms.items()
    }
    for name in OF_ATTENTION:
        weights[name] = _linear_weights(getattr(attention, name), name)
    networks = networks_of(block)
    parts = [_network_weights(name, network) for name, network in networks.items()]
    if isinstance(feed_forward, Experts):
        weights |= dict.fromkeys(OF_NETWORK)
        weights["mixture"] = _mixture(feed_forward, parts)
    else:
        weights |= vars(parts[0])
    activations = {network.activation for network in networks.values()}
    if len(activations) != 1:
        raise UnknownPart("its experts differ in activation")
    shape = DecoderShape(
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_kv_heads,
        head_dim=attention.head_dim,
        eps=eps.pop(),
        activation="silu" if (own := activations.pop()) is None else own,
        attention_scale=attention.scale,
        residual_scale=block.residual_scale,
        attention_softcap=attention.softcap,
        query_scale_beta=attention.growth,
        query_scale_length=attention.growth_length,
        experts_per_token=getattr(feed_forward, "per_token", None),
        normalize_expert_weights=getattr(feed_forward, "normalize", False),
    )
    _check_numbers(shape)
    read = BlockWeights(**weights)
    _check_sizes(read, shape, dict(zip(networks, parts, strict=True)))
    return read, shape


def tensors_of(weights: BlockWeights) -> list[Tensor | None]:
    """All that a kernel reads of a block, in one order; None for what there is not."""
    parts: list[Tensor | None] = []
    for part in vars(weights).values():
        if isinstance(part, MixtureWeights):
            linears = [linear for network in part.networks for linear in vars(network).values()]
            parts += [part.router, part.shared_gate]
        else:
            linears = [part] if isinstance(part, LinearWeights) else []
            parts += [] if linears else [part]
        for linear in linears:
            parts += [linear.weight, linear.bias, linear.scale]
    return parts


def _check_numbers(shape: DecoderShape) -> None:
    """Kernels know the numbers that a configuration may have; a forward runs with others, too."""

    def is_scale(value: object) -> bool:
        return value is None or is_number(value, 1e-6, 1e6)

    known = {
        **{name: is_integer(getattr(shape, name), 1) for name in _COUNTS},
        **{name: is_scale(getattr(shape, name)) for name in _SCALES},
        "eps": is_number(shape.eps, 0.0),
        "query_scale_length": (shape.query_scale_length is None)
        == (shape.query_scale_beta is None),
        "normalize_expert_weights": isinstance(shape.normalize_expert_weights, bool),
    }
    for name, is_known in known.items():
        if not is_known:
            raise UnknownPart(f"its {name} is {shown(getattr(shape, name))}, which no kernel knows")


def _check_sizes(
    block: BlockWeights, shape: DecoderShape, networks: dict[str, FeedForwardWeights]
) -> None:
    """Kernels take the sizes of all tensors from a few of them, and check none.

    torch would broadcast some of the others, and refuse the rest when they are used.
    """
    width = block.q_proj.weight.shape[-1]
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        _check_linear(name, getattr(block, name), outputs, width)
    _check_linear("o_proj", block.o_proj, width, queries)
    for name in ("attention_norm", "ffn_norm", "attention_post_norm", "ffn_post_norm"):
        _check_size(name, getattr(block, name), (width,))
    for name, norm, whole in (("q_norm", block.q_norm, queries), ("k_norm", block.k_norm, keys)):
        _check_size(name, norm, (shape.head_dim,), (whole,))
    # All experts are as wide as the first; a shared one has a width of its own.
    first = next(iter(networks.values()))
    for name, network in networks.items():
        hidden = len((network if name == "shared_expert" else first).w_gate.weight)
        _check_linear(name_in(name, "w_gate"), network.w_gate, hidden, width)
        _check_linear(name_in(name, "w_up"), network.w_up, hidden, width)
        _check_linear(name_in(name, "w_down"), network.w_down, width, hidden)
    if block.mixture is not None:
        count = len(block.mixture.experts)
        _check_size("router", block.mixture.router, (count, width))
        _check_size("shared_gate", block.mixture.shared_gate, (1, width))
        asked = shape.experts_per_token
        if not is_integer(asked, 1, count):
            raise UnknownPart(f"it asks for {asked} of {count} experts")


def _check_linear(name: str, linear: LinearWeights, outputs: int, inputs: int) -> None:
    _check_size(name, linear.weight, (outputs, inputs))
    _check_size(f"the bias of {name}", linear.bias, (outputs,))
    _check_size(f"the scale of {name}", linear.scale, (outputs,))


def _check_size(name: str, tensor: Tensor | None, *expected: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) not in expected:
        wanted = " or ".join(str(size) for size in expected)
        raise UnknownPart(f"{name} has the size {tuple(tensor.shape)}, expected {wanted}")


def _network_weights(name: str, network: FeedForward) -> FeedForwardWeights:
    return FeedForwardWeights(
        **{
            part: _linear_weights(getattr(network, part), name_in(name, part))
            for part in OF_NETWORK
        }
    )


def _mixture(whole: Experts, networks: list[FeedForwardWeights]) -> MixtureWeights:
    """A mixture of these networks, of which the shared expert is the last."""
    return MixtureWeights(
        router=whole.router.weight,
        experts=networks[: len(whole.experts)],
        shared_expert=None if whole.shared_expert is None else networks[-1],
        shared_gate=None if whole.shared_gate is None else whole.shared_gate.weight,
    )


def _linear_weights(linear: nn.Module, name: str) -> LinearWeights:
    if not isinstance(linear, HasLinearWeights):
        assert isinstance(linear, Linear)
        return LinearWeights(weight=linear.weight, bias=linear.bias)
    declared = linear.linear_weights()
    if declared is None:
        raise UnknownPart(f"{name} is {kind_of(linear)} of a kind that no kernel reads")
    return declared
