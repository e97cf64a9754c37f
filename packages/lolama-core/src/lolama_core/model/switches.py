"""What descendants of LLaMA do otherwise. All of it is off in a LLaMA, and its reader may skip this page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

from lolama_core.protocols.types import JSON


@dataclass(frozen=True, kw_only=True)
class Switches:
    """The fields of `LlamaConfig` that LLaMA does not have. Each default means "as LLaMA does it".

    Args:
        activation: What the gate of the feed-forward network goes through: ``"gelu"``, or ``"gelu_tanh"``,
            its approximation by a tanh (Gemma).
        norms: Where a block has norms: ``"before"`` attention and feed-forward, ``"after"`` them (OLMo 2), or
            ``"both"`` (Gemma 2).
        qk_norm: RMSNorm on queries and keys, ahead of their rotation: over each ``"head"`` (Qwen3), or over
            the ``"width"`` of all heads (OLMo 2). None: there is none.
        sliding_layers: The layers that have the ``sliding_window``; the others see all positions before.
            None: all layers have it.
        sliding_rope_base: θ of the layers that have the window, whose rotation is then not stretched
            (Gemma 3, OLMo 3). None: as in the others.
        unrotated_layers: Layers without rotary embedding (SmolLM3).
        rotary_dim: Dimensions of a head that are rotated, as `RotaryEmbedding` lays them out (Phi-4-mini).
            None: all.
        embedding_scale: What embeddings of tokens are multiplied with (Gemma, Granite).
        residual_scale: The same for what attention and feed-forward add to the stream (Granite).
        attention_scale: The same for q kᵀ. None: 1 / √head_dim.
        logit_divisor: What logits are divided by (Granite).
        attention_softcap, logit_softcap: q kᵀ, and the logits, become cap · tanh(x / cap) (Gemma 2).
        query_scale_beta, query_scale_length: β and L: a query at position p is multiplied with
            1 + β ln(1 + ⌊p / L⌋) (Ministral 3).
        num_experts: How many experts the feed-forward network is a mixture of (Mixtral); see `experts`. None:
            it is one network.
        experts_per_token: How many of them each token goes through.
        expert_dim: Inner width of an expert.
        shared_expert_dim: The same of one more expert, which all tokens go through (Qwen2-MoE). None: there
            is none.
        normalize_expert_weights: Whether the weights of a token's experts sum to 1.
        dense_layers: Layers without experts, whose feed-forward network is LLaMA's.
    """

    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    norms: Literal["before", "after", "both"] = "before"
    qk_norm: Literal["head", "width"] | None = None
    sliding_layers: tuple[int, ...] | None = None
    sliding_rope_base: float | None = None
    unrotated_layers: tuple[int, ...] = ()
    rotary_dim: int | None = None
    embedding_scale: float | None = None
    residual_scale: float | None = None
    attention_scale: float | None = None
    logit_divisor: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    query_scale_beta: float | None = None
    query_scale_length: int | None = None
    num_experts: int | None = None
    experts_per_token: int | None = None
    expert_dim: int | None = None
    shared_expert_dim: int | None = None
    normalize_expert_weights: bool = False
    dense_layers: tuple[int, ...] = ()

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward network of a layer is a mixture of experts."""
        return self.num_experts is not None and layer not in self.dense_layers

    def switches_off(self) -> set[str]:
        """Names of the switches that are off. A checkpoint does without them, so older versions read it."""
        return {
            switch.name
            for switch in fields(Switches)
            if getattr(self, switch.name) == switch.default
        }


def written(config: Switches) -> dict[str, JSON]:
    """A configuration as a file has it: with lists for tuples, and without what is off."""
    off = config.switches_off()
    return {name: _plain(value) for name, value in asdict(config).items() if name not in off}


_NONE: object = ()


def _plain(value: JSON | tuple[JSON, ...]) -> JSON:
    if isinstance(value, dict):
        # A stretching without factors of pairs names none.
        return {name: _plain(inner) for name, inner in value.items() if inner != _NONE}
    return list(value) if isinstance(value, tuple) else value
