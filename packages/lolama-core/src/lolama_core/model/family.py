"""The LLaMA family: how a canonical configuration becomes a `Llama`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.protocols import ImageProcessor
from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama_core.model.llama import Llama
    from lolama_core.protocols.causal_module import CausalLMModule


class LlamaFamily:
    """Llama, Mistral and Qwen2: text models that `Llama` covers."""

    name = "llama"
    builtins: Mapping[str, Path] = {"demo": Path(__file__).parents[1] / "demo"}

    def build(
        self, config: Mapping[str, JSON], build_text: Callable[[Mapping[str, JSON]], CausalLMModule]
    ) -> Llama:
        """A `Llama` on the meta device: no memory, no random numbers.

        Raises:
            ModelError: for a configuration that makes no sense.
        """
        # Here, so that listing the built-in models costs no import of torch.
        import torch

        from lolama_core.model.config import LlamaConfig
        from lolama_core.model.llama import Llama
        from lolama_core.model.no_init import NoInit

        checked = LlamaConfig.from_json(config)
        with torch.device("meta"), NoInit():
            return Llama(checked)

    def image_processor(self, config: Mapping[str, JSON]) -> ImageProcessor | None:
        """None: a text model."""
        return None
