"""What is told of a model at work: every number that a picture of it needs, ready for JSON.

Legend: T positions, H query heads, K heads of keys and values, hd width of a head. Numbers are rounded to six
decimals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Candidate:
    """A token that could come next.

    Attributes:
        id: Its id.
        text: What it spells.
        probability: What the model gives it, from 0 to 1.
    """

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Neuron:
    """A neuron of a feed-forward network that is far from zero.

    Attributes:
        number: Its place in the network.
        gate: Its activated gate.
        value: The gate times what it lets through.
    """

    number: int
    gate: float
    value: float


@dataclass(frozen=True)
class ExplainedLayer:
    """What one block computed for a text.

    Attributes:
        attention: (H, T, t + 1), how much of each position t looks at, up to itself.
        queries: (H, T, hd), before RoPE turned them.
        keys: (K, T, hd), likewise.
        values: (K, T, hd).
        head_sizes: (H, T), the length of what each head adds to the residual stream.
        attention_size, network_size: (T,), the length of what attention, and the feed-forward network, add.
        neurons: (T, up to 8), those that are farthest from zero; empty for a mixture of experts.
        stream: (T,), the length of the residual stream behind the block.
        predictions: (T, up to 5), what the model would say if this block were its last one.
    """

    attention: Sequence[Sequence[Sequence[float]]]
    queries: Sequence[Sequence[Sequence[float]]]
    keys: Sequence[Sequence[Sequence[float]]]
    values: Sequence[Sequence[Sequence[float]]]
    head_sizes: Sequence[Sequence[float]]
    attention_size: Sequence[float]
    network_size: Sequence[float]
    neurons: Sequence[Sequence[Neuron]]
    stream: Sequence[float]
    predictions: Sequence[Sequence[Candidate]]


@dataclass(frozen=True)
class Explanation:
    """What a model computed for a text.

    Attributes:
        ids: (T,) token ids; -1 for a position of a picture.
        texts: (T,) what each token spells.
        angles: (T, rotated pairs), the radians by which RoPE turns each pair of the first kind of layers.
        heads, key_heads, head_dim, width, neurons, vocabulary: The shape of the model.
        cache_bytes: What a position takes in the cache, all layers together.
        layers: The blocks, in order.
        logits: (id, logit) of the tokens that could follow, the best first, 2,000 at most.
        candidates: What these ids spell.
    """

    ids: Sequence[int]
    texts: Sequence[str]
    angles: Sequence[Sequence[float]]
    heads: int
    key_heads: int
    head_dim: int
    width: int
    neurons: int
    vocabulary: int
    cache_bytes: int
    layers: Sequence[ExplainedLayer]
    logits: Sequence[tuple[int, float]]
    candidates: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PartsOff:
    """Parts of a model that are switched off; see `lolama_core.ablate`.

    Attributes:
        layers: Whole blocks.
        heads: (layer, head), query heads.
        neurons: (layer, neuron), neurons of feed-forward networks.
    """

    layers: Sequence[int] = ()
    heads: Sequence[tuple[int, int]] = ()
    neurons: Sequence[tuple[int, int]] = ()


@runtime_checkable
class ExplainedModel(Protocol):
    """A loaded model that can be watched. Its methods may be called from several threads."""

    @property
    def reference(self) -> Mapping[str, str]:
        """Name of a function of `lolama_core.reference` → its lines: the code of what is explained."""
        ...

    def explain(self, text: str, off: PartsOff) -> Explanation:
        """What it computes for a text.

        Raises:
            UsageError: for an empty text, one that is too long, or a part that it does not have.
        """
        ...

    def continued(self, text: str, off: PartsOff, tokens: int) -> str:
        """The most likely continuation of a text, of up to ``tokens`` tokens.

        Raises:
            UsageError: as `explain`.
        """
        ...
