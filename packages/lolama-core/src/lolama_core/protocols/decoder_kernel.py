"""All blocks of a decoder in one call, for the new positions of some rows: mostly one of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lolama_core.protocols.grouped import GroupFormat


@dataclass(frozen=True, kw_only=True)
class LinearWeights:
    """A linear's ``weight`` (N, K) and ``bias`` (N,) or None.

    A weight of int8 has a ``scale`` (N,) float32 that its rows are multiplied with. A grouped one is what its
    ``form`` says, in up to three tensors, and has its number of ``inputs`` beside it.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None = None
    form: GroupFormat | None = None
    inputs: int | None = None
    group_scale: Tensor | None = None
    block_scale: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Outputs and inputs, N and K."""
        outputs, stored = self.weight.shape
        return outputs, stored if self.inputs is None else self.inputs

    @property
    def kind(self) -> object:
        """What blocks that run in one call must have alike: of grouped weights no formats, but sizes."""
        if self.form is not None:
            return self.size, self.bias is not None, self.weight.device
        return tuple(
            part is not None and (part.dtype, part.shape, part.device) for part in self.tensors
        )

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that a kernel reads, in one order; None for what there is not."""
        return self.weight, self.bias, self.scale, self.group_scale, self.block_scale


@runtime_checkable
class HasLinearWeights(Protocol):
    """A module in the place of a linear that a kernel may stand in for, such as one with int8 weights."""

    def linear_weights(self) -> LinearWeights | None:
        """The weights that its ``forward`` multiplies with; None if it does anything else besides."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeedForwardWeights:
    """A gated feed-forward network."""

    w_gate: LinearWeights
    w_up: LinearWeights
    w_down: LinearWeights


@dataclass(frozen=True, kw_only=True)
class MixtureWeights:
    """A mixture of experts; see `lolama_core.model.experts`.

    Attributes:
        router: (experts, D).
        experts: All of one shape.
        shared_expert: One that all tokens go through.
        shared_gate: (1, D), the weights of the gate that the shared expert is multiplied with.
    """

    router: Tensor
    experts: Sequence[FeedForwardWeights]
    shared_expert: FeedForwardWeights | None = None
    shared_gate: Tensor | None = None

    @property
    def networks(self) -> list[FeedForwardWeights]:
        """The experts, and behind them the shared one if there is one."""
        return [*self.experts, *([self.shared_expert] if self.shared_expert else [])]


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """What one block is made of: attention and a gated feed-forward network, each added to the stream.

    Norms that a block does not have are None: a LLaMA has ``attention_norm`` and ``ffn_norm`` alone.

    Attributes:
        attention_norm, ffn_norm: (D,), norms of what attention and feed-forward read.
        q_norm, k_norm: Norms of queries and keys, before they are rotated: (head_dim,) of each head, or
            (heads · head_dim,) of all of them.
        attention_post_norm, ffn_post_norm: (D,), norms of what is added to the stream.
        w_gate, w_up, w_down: The feed-forward network; None of a block that has a ``mixture``.
        mixture: What it has in the place of that.
    """

    attention_norm: Tensor | None
    q_proj: LinearWeights
    k_proj: LinearWeights
    v_proj: LinearWeights
    o_proj: LinearWeights
    ffn_norm: Tensor | None
    w_gate: LinearWeights | None
    w_up: LinearWeights | None
    w_down: LinearWeights | None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    attention_post_norm: Tensor | None = None
    ffn_post_norm: Tensor | None = None
    mixture: MixtureWeights | None = None

    def feed_forward(self) -> FeedForwardWeights:
        """The feed-forward network of a block that has no mixture."""
        assert self.w_gate is not None and self.w_up is not None and self.w_down is not None
        return FeedForwardWeights(w_gate=self.w_gate, w_up=self.w_up, w_down=self.w_down)


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """What the weights' own shapes do not tell.

    Attributes:
        activation: What the gate goes through: ``"silu"``, ``"gelu"`` or ``"gelu_tanh"``.
        attention_scale: What q kᵀ is multiplied with. None: 1 / √head_dim.
        residual_scale: What attention and feed-forward are multiplied with before they are added. None: 1.
        attention_softcap: q kᵀ becomes cap · tanh(q kᵀ / cap). None: it stays as it is.
        query_scale_beta, query_scale_length: What `NewPositions.query_scales` are made of; None without them.
        experts_per_token: How many experts each token goes through. None: there are none.
        normalize_expert_weights: Whether the weights of a token's experts sum to 1.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    activation: str = "silu"
    attention_scale: float | None = None
    residual_scale: float | None = None
    attention_softcap: float | None = None
    query_scale_beta: float | None = None
    query_scale_length: int | None = None
    experts_per_token: int | None = None
    normalize_expert_weights: bool = False


def switches_on(weights: BlockWeights, shape: DecoderShape) -> set[str]:
    """What a block does otherwise than LLaMA's, by the names of the fields of `LlamaConfig`."""
    before, after = weights.attention_norm, weights.attention_post_norm
    used = {
        "qk_norm": weights.q_norm is not None,
        "norms": before is None or after is not None,
        "activation": shape.activation != "silu",
        "attention_scale": shape.attention_scale is not None,
        "residual_scale": shape.residual_scale is not None,
        "attention_softcap": shape.attention_softcap is not None,
        "query_scale_beta": shape.query_scale_beta is not None,
        "num_experts": weights.mixture is not None,
    }
    return {name for name, is_on in used.items() if is_on}


@dataclass(frozen=True, kw_only=True)
class NewPositions:
    """The new positions of a batch, row after row, and where in the cache they go.

    Attributes:
        x: (P, D) float32; P is the sum of ``counts``.
        cos, sin: (P, head_dim) float32, of each position; the first half of ``sin`` is negated, as rotating
            half-split pairs needs it.
        pages: (B, N) int64 on the device of ``x``: the pages of the cache that hold each row, in the order of
            its positions. What follows the last page that a row fills is not read.
        starts: Positions that each row holds; its new ones follow, all within its pages. Where nobody knows
            on the host, 0 for each: only a step that reads places is given such ones.
        positions: (B, T) int64 on the device of ``x``: the same of each input position, padding included;
            None for a step that does not read places.
        counts: New positions of each row, at least one.
        window: The number of keys that a position sees, its own included; None for all.
        only_last: Nobody reads any but the last position of each row.
        query_scales: (P,) float32: what the queries of each position are multiplied with; None for 1.
    """

    x: Tensor
    cos: Tensor
    sin: Tensor
    pages: Tensor
    starts: Sequence[int]
    positions: Tensor | None
    counts: Sequence[int]
    window: int | None
    only_last: bool
    query_scales: Tensor | None = None


class DecoderStep(Protocol):
    """Runs the weights that it was made for."""

    @property
    def max_rows(self) -> int:
        """Up to how many rows, one new position of each, it is the faster choice."""
        ...

    @property
    def cache_dtypes(self) -> Collection[torch.dtype]:
        """The dtypes of keys and values that it takes; see `__call__`."""
        ...

    @property
    def prompt_dtypes(self) -> Collection[torch.dtype]:
        """The dtypes of keys and values with which it also takes several positions of a row."""
        ...

    @property
    def fixed_order(self) -> bool:
        """Whether a position has the same result, bit for bit, whatever rows and positions are in the call.

        It then takes any number of rows, and several positions of a row.
        """
        ...

    @property
    def reads_places(self) -> bool:
        """Whether it takes places from ``positions``, read when the step runs: it can be recorded."""
        ...

    def __call__(
        self, new: NewPositions, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Tensor:
        """Run every block on new positions, and write their keys and values.

        Args:
            new: The positions.
            keys, values: For each layer, (pages, K, positions of a page, head_dim), the last two dimensions
                contiguous, and all of them with the same strides. In int8 (pages, K, positions of a page,
                head_dim + 2): codes, and behind them the two bytes of their scale, as
                `lolama_core.runtime.int8_cache` makes them. A position sees what is stored, of itself, too.

        Returns:
            (P, D) float32, what the last block hands on; with ``only_last`` (B, D).
        """
        ...


@runtime_checkable
class KnowsSwitches(Protocol):
    """A `DecoderKernel` also for blocks that do something otherwise than LLaMA's. Others are given none."""

    @property
    def switches(self) -> Collection[str]:
        """Which of `switches_on` it computes."""
        ...


@runtime_checkable
class DecoderKernel(Protocol):
    """Makes decoding steps. Found through the entry point ``lolama.decoder_kernels``."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    def describe(self) -> str:
        """One line for reports: what it runs on here, or why it does not run."""
        ...

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> DecoderStep | None:
        """A step for these weights, in the order of the blocks; None if it is not for such weights.

        Weights are read where they are, at every step, and must outlive it.
        """
        ...
