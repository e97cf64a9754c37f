"""Watching a model: `observe` records what each block computes, in the model's own plain code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.model.attention import Attention
from lolama_core.model.block import Block
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.llama import Llama
from lolama_core.model.masks import PassPlan
from lolama_core.model.scaling import softcap
from lolama_core.observation.observed import ObservedLayer, ObservedPass
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.known import text_model


class Observer:
    """What `observe` has seen so far.

    Args:
        model: The decoder that is watched.

    Attributes:
        passes: One for each pass of new positions, in the order of time.
    """

    def __init__(self, model: Llama) -> None:
        self.passes: list[ObservedPass] = []
        self._model, self._blocks = model, blocks_of(model)
        self._embeds = torch.empty(0)
        self._positions = torch.empty(0)
        self._parts: dict[str, Tensor] = {}
        self._layers: list[ObservedLayer] = []

    def logits_after(self, seen: ObservedPass, layer: int) -> Tensor:
        """What the model would predict if block ``layer`` were its last one.

        This is the *logit lens* (nostalgebraist 2020).

        Args:
            seen: A pass.
            layer: From 0; -1 is the last block, whose logits are the model's own.

        Returns:
            (B, T, V) float32 on the CPU.
        """
        model = self._model
        stream = seen.layers[layer].after.to(model.device)
        with torch.no_grad():
            return model.head(stream, model.lm_head).cpu()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Watch every block of the model until the end."""
        with ExitStack() as until_the_end:
            for layer, block in enumerate(self._blocks):
                until_the_end.enter_context(self._watching_block(block, layer))
            yield

    @contextmanager
    def _watching_block(self, block: Block, layer: int) -> Iterator[None]:
        network, attention = block.feed_forward, block.attention
        handles = [
            block.register_forward_pre_hook(partial(self._begin, layer)),
            block.ffn_norm.register_forward_pre_hook(self._keep_input("after_attention")),
            block.register_forward_hook(partial(self._end, layer)),
        ]
        if isinstance(network, FeedForward):
            handles += [
                network.w_gate.register_forward_hook(partial(self._gate, network)),
                network.w_down.register_forward_pre_hook(self._keep_input("neurons")),
            ]
        # An attribute that kernels do not know, so that they leave the block to its own code.
        vars(attention)["attend"] = partial(self._attend, attention)
        try:
            yield
        finally:
            del vars(attention)["attend"]
            for handle in handles:
                handle.remove()

    def _begin(self, layer: int, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        plan: PassPlan = inputs[1]
        if layer == 0:
            self._embeds, self._positions, self._layers = kept(x), plan.positions.cpu(), []
        own = plan.of_kind(self._blocks[layer].attention.kind)
        pairs = own.cos.shape[-1] // 2
        # Both halves have the same angles; `rotate` takes the first half of sin with a minus sign.
        self._parts = {"cos": kept(own.cos[:, 0, :, pairs:]), "sin": kept(own.sin[:, 0, :, pairs:])}

    def _keep_input(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._parts[name] = kept(inputs[0])

        return keep

    def _gate(self, network: FeedForward, module: nn.Module, inputs: Any, gate: Tensor) -> None:
        self._parts["gate"] = kept(network.activate(gate))

    def _attend(
        self, attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, plan: PassPlan
    ) -> Tensor:
        weights = attention_weights(attention, queries, keys, plan)
        grouped = by_key_head(weights, keys)  # (B, K, H / K, T, L)
        taken = grouped @ values.float()[:, :, None]  # (B, K, H / K, T, hd)
        heads = taken.flatten(1, 2).transpose(1, 2)  # (B, T, H, hd)
        named = {"queries": queries, "keys": keys, "values": values, "attention": weights}
        self._parts |= {name: kept(tensor) for name, tensor in {**named, "heads": heads}.items()}
        return heads.flatten(2)

    def _end(self, layer: int, block: nn.Module, inputs: Any, stream: Tensor) -> None:
        parts: dict[str, Any] = {"gate": None, "neurons": None, **self._parts}
        self._layers.append(ObservedLayer(**parts, after=kept(stream)))
        if layer == len(self._blocks) - 1:
            found = ObservedPass(self._positions, self._embeds, tuple(self._layers))
            self.passes.append(found)


@contextmanager
def observe(model: CausalLM) -> Iterator[Observer]:
    """Record what every block of ``model`` computes, for as long as the context lasts.

    The model runs in its own plain code meanwhile: kernels do not know a block that is watched, and decline
    it. Texts that began before go on unseen on kernels. One pass may hold several rows and several positions,
    such as a prompt, or tokens that a draft tried. To see each token in a pass of its own, generate with
    ``draft="off"``.

    Args:
        model: A `Llama`, or a model around one.

    Raises:
        UsageError: for a model that is no `Llama` inside, or one that is already observed.
    """
    text = observed_model(model)
    if any("attend" in vars(block.attention) for block in blocks_of(text)):
        raise UsageError("model", "is already observed", "end that first")
    observer = Observer(text)
    with observer._watching():
        yield observer


def observed_model(model: CausalLM) -> Llama:
    """The decoder in ``model``.

    Raises:
        UsageError: if there is none.
    """
    text = text_model(model)
    if text is None:
        raise UsageError("model", f"is {kind_of(model)}", "use a model that lolama builds")
    return text


def blocks_of(model: Llama) -> list[Block]:
    """The blocks of a decoder, in order."""
    return [block for block in model.layers if isinstance(block, Block)]


def attention_weights(
    attention: Attention, queries: Tensor, keys: Tensor, plan: PassPlan
) -> Tensor:
    """softmax(scale q kᵀ): (B, H, T, hd) and (B, K, L, hd) → (B, H, T, L) float32; see `attend`."""
    head_dim, width, length = queries.shape[-1], queries.shape[2], keys.shape[2]
    grouped = by_key_head(queries.float(), keys)  # (B, K, H / K, T, hd)
    scores = (grouped @ keys.float()[:, :, None].mT).flatten(1, 2)  # (B, H, T, L)
    scores = scores * (head_dim**-0.5 if attention.scale is None else attention.scale)
    if attention.softcap is not None:
        scores = softcap(scores, attention.softcap)
    if plan.causal:
        seen = torch.ones(width, length, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    elif plan.mask is not None and plan.mask.dtype == torch.bool:
        scores = scores.masked_fill(~plan.mask, float("-inf"))
    elif plan.mask is not None:
        scores = scores + plan.mask
    return F.softmax(scores, dim=-1)


def by_key_head(of_heads: Tensor, keys: Tensor) -> Tensor:
    """(B, H, ...) → (B, K, H / K, ...), query heads beside the others that share their keys (B, K, L, hd)."""
    batch, num_heads, *rest = of_heads.shape
    return of_heads.reshape(batch, keys.shape[1], num_heads // keys.shape[1], *rest)


def kept(tensor: Tensor) -> Tensor:
    """A copy in float32 on the CPU."""
    return tensor.detach().to("cpu", torch.float32, copy=True)
