"""Models: a causal language model, and the family that builds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lolama_core.protocols.types import JSON, GenerationDefaults, Prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lolama_core.protocols.causal_module import CausalLMModule
    from lolama_core.protocols.image import ImageProcessor
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
    ) -> Tensor:
        """(B, T, D) → logits of each row's last position (B, V), or of all positions (B, T, V), float32.

        Rows continue after what the cache holds; ``lengths[b]`` ≤ T of row b's positions are real, the
        rest is padding (None: all are real). The cache is written to but never advanced here.
        """
        ...


@runtime_checkable
class HasTextModel(Protocol):
    """A `CausalLM` around another, which reads what it embeds."""

    def text_model(self) -> CausalLM | None:
        """The model inside whose ``forward_embeds`` is this one's; None if this one does more."""
        ...


class ModelFamily(Protocol):
    """A kind of model. Found through the entry point ``lolama.families``."""

    @property
    def name(self) -> str:
        """The value of ``family`` in a canonical configuration."""
        ...

    @property
    def builtins(self) -> Mapping[str, Path]:
        """Models that ship with the package: name → lolama checkpoint directory."""
        ...

    def build(
        self,
        config: Mapping[str, JSON],
        build_text: Callable[[Mapping[str, JSON]], CausalLMModule],
    ) -> CausalLMModule:
        """The `CausalLM` of a canonical ``model`` block, on the meta device.

        ``build_text`` builds the language model inside it; a text family does not need it.

        Raises:
            ModelError: for a configuration that makes no sense, before anything is allocated.
        """
        ...

    def image_processor(self, config: Mapping[str, JSON]) -> ImageProcessor | None:
        """The processor for this model's pictures, or None if it sees none."""
        ...
