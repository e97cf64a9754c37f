"""A causal language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lolama_core.protocols.types import GenerationDefaults, Prompt, Spans

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lolama_core.protocols.kv_cache import KVCache


@runtime_checkable
class CausalLM(Protocol):
    """A decoder that turns embedded positions into next-token logits.

    Generation needs nothing else, which is how a model that looks at pictures can wrap one that only reads.
    Legend: B batch, T positions, D model width, V vocabulary.
    """

    generation_defaults: GenerationDefaults

    @property
    def max_seq_len(self) -> int:
        """Positions the model can attend over."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: each token id is below it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """How the weights are stored."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The weights, as `torch.nn.Module` lists them."""
        ...

    def make_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache that this model can use. ``capacity`` ≤ ``max_seq_len`` positions a row."""
        ...

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D)."""
        ...

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        """(B, T) right-padded ids, and whatever else the model reads (``pixel_values``, ...) → `Prompt`.

        Raises:
            UsageError: for inputs that this model does not take.
        """
        ...

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCache | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        """(B, T, D) → logits of each row's last position (B, V), or of all positions (B, T, V), float32.

        Rows continue after what the cache holds; ``lengths[b]`` ≤ T of row b's positions are real, the
        rest is padding (None: all are real). A position sees those before it, and those behind it that are in
        the same of its row's ``spans``, which are columns of ``embeds``. No pass ends within a span, and only
        a model whose `embed_prompt` has found some is given any. The cache is written to but never advanced
        here.
        """
        ...


class PromptLogits(Protocol):
    """Runs a model over a text, and tells what it predicts everywhere."""

    def __call__(self, model: CausalLM, ids: Sequence[int], chunk: int | None = None, /) -> Tensor:
        """T ids → (T, V) logits on the CPU; ``chunk`` positions in one pass, or as many as suit."""
        ...


@runtime_checkable
class HasTextModel(Protocol):
    """A `CausalLM` around another, which reads what it embeds."""

    def text_model(self) -> CausalLM | None:
        """The model inside whose ``forward_embeds`` is this one's; None if this one does more."""
        ...
