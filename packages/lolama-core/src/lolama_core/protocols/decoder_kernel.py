"""All blocks of a decoder in one call, for the one position that each row gains in a decoding step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LinearWeights:
    """A linear's ``weight`` (N, K) and ``bias`` (N,) or None.

    A weight of int8 has a ``scale`` (N,) float32 that its rows are multiplied with.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None = None


@runtime_checkable
class HasLinearWeights(Protocol):
    """A module in the place of a linear that a kernel may stand in for, such as one with int8 weights."""

    def linear_weights(self) -> LinearWeights | None:
        """The weights that its ``forward`` multiplies with; None if it does anything else besides."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """What one block is made of: pre-norm attention and SwiGLU, each added to the stream."""

    attention_norm: Tensor
    q_proj: LinearWeights
    k_proj: LinearWeights
    v_proj: LinearWeights
    o_proj: LinearWeights
    ffn_norm: Tensor
    w_gate: LinearWeights
    w_up: LinearWeights
    w_down: LinearWeights


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """What the weights' own shapes do not tell."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float


class DecoderStep(Protocol):
    """One decoding step of the weights that it was made for."""

    @property
    def max_rows(self) -> int:
        """Up to how many rows it is the faster choice."""
        ...

    @property
    def reads_places(self) -> bool:
        """Whether ``starts`` and ``first_keys`` are tensors, read when the step runs: it can be recorded."""
        ...

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
        """Run every block on one new position of each row, and write its keys and values.

        Args:
            x: (B, D) float32.
            cos, sin: (B, head_dim) float32, of each row's new position; the first half of ``sin`` is
                negated, as rotating half-split pairs needs it.
            keys, values: For each layer, (rows of the cache, K, capacity, head_dim). Row b of ``x`` is row
                ``first_row + b``, and its new keys and values go to position ``starts[b]``.
            first_row: See ``keys``.
            starts: Positions that each row holds, all below the capacity; with `reads_places` (B,) int64
                on the device of ``x``.
            first_keys: Positions before it are out of sight (sliding window); as ``starts``.

        Returns:
            (B, D) float32, what the last block hands on.
        """
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
