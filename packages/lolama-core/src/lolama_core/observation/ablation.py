"""Switching parts of a model off, to see what it does without them (zero ablation)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.feed_forward import FeedForward
from lolama_core.observation.observer import blocks_of, observed_model
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError


@contextmanager
def ablate(
    model: CausalLM,
    *,
    layers: Collection[int] = (),
    heads: Collection[tuple[int, int]] = (),
    neurons: Collection[tuple[int, int]] = (),
) -> Iterator[None]:
    """Run ``model`` without some of its parts, for as long as the context lasts.

    Blocks that lack a part run in their own plain code, all others as before.

    Args:
        model: A `Llama`, or a model around one.
        layers: Blocks that leave the residual stream as it is.
        heads: (layer, head): query heads that hand zeros to ``o_proj``.
        neurons: (layer, neuron): neurons of a feed-forward network that are zero.

    Raises:
        UsageError: for a model that is no `Llama` inside, a part that it does not have, or a neuron of a
            mixture of experts.
    """
    text = observed_model(model)
    blocks = blocks_of(text)
    with ExitStack() as until_the_end:

        def remove_later(handle: Any) -> None:
            until_the_end.callback(handle.remove)

        for layer in layers:
            check_part("layer", layer, len(blocks))
            # Whoever observes the block is to see it without the part, so this comes first.
            remove_later(blocks[layer].register_forward_hook(_pass_on, prepend=True))
        for layer, head in heads:
            check_part("layer", layer, len(blocks))
            attention = blocks[layer].attention
            check_part("head", head, attention.num_heads)
            width = attention.head_dim
            cut = _zero(slice(head * width, (head + 1) * width))
            remove_later(attention.o_proj.register_forward_pre_hook(cut, prepend=True))
        for layer, neuron in neurons:
            check_part("layer", layer, len(blocks))
            network = _network(blocks[layer], layer)
            width = text.kinds[blocks[layer].attention.kind].hidden_dim
            check_part("neuron", neuron, width)
            cut = _zero(slice(neuron, neuron + 1))
            remove_later(network.w_down.register_forward_pre_hook(cut, prepend=True))
        yield


def check_part(kind: str, number: int, count: int) -> None:
    """Raises: UsageError: if there is no ``number`` among ``count`` parts."""
    if not 0 <= number < count:
        raise UsageError(f"{kind} {number}", "is none of the model's", f"use 0 to {count - 1}")


def _network(block: Block, layer: int) -> FeedForward:
    network = block.feed_forward
    if not isinstance(network, FeedForward):
        reason = "is a mixture of experts, whose neurons cannot be switched off"
        raise UsageError(f"layer {layer}", reason, "switch the layer off")
    return network


def _pass_on(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    x: Tensor = inputs[0]
    return x


def _zero(part: slice) -> Any:
    def zero(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].clone()
        x[..., part] = 0
        return (x, *inputs[1:])

    return zero
