"""What kernels read of a block: its weights, and the numbers that these do not tell."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.experts import Experts
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.linear import Linear
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols.checks import kind_of
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


def block_weights(block: Block) -> tuple[BlockWeights, DecoderShape]:
    """What a kernel reads of a block that `check_block` knows.

    Raises:
        UnknownPart: if its numbers or linears are of a kind that no kernel reads.
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
        activation=activations.pop() or "silu",
        attention_scale=attention.scale,
        residual_scale=block.residual_scale,
        attention_softcap=attention.softcap,
        query_scale_beta=attention.growth,
        query_scale_length=attention.growth_length,
        experts_per_token=getattr(feed_forward, "per_token", None),
        normalize_expert_weights=getattr(feed_forward, "normalize", False),
    )
    return BlockWeights(**weights), shape


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
