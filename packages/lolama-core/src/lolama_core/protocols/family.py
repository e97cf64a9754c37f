"""The family of a model: what builds it from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama_core.protocols.causal_module import CausalLMModule
    from lolama_core.protocols.image import ImageProcessor


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
