"""The model family ``llava``: a language model that is shown pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama_core.protocols.causal_module import CausalLMModule
    from lolama_vision.image_processor import CLIPImageProcessor
    from lolama_vision.llava import LLaVA


class LlavaFamily:
    """LLaVA 1.5, LLaVA-Med, BakLLaVA and LLaVA-NeXT, around any text model."""

    name = "llava"
    builtins: Mapping[str, Path] = {"demo-vision": Path(__file__).parent / "demo_vision"}

    def build(
        self, config: Mapping[str, JSON], build_text: Callable[[Mapping[str, JSON]], CausalLMModule]
    ) -> LLaVA:
        """A `LLaVA` on the meta device: no memory, no random numbers.

        Raises:
            ModelError: for a configuration that makes no sense.
        """
        import torch

        from lolama_vision.config import VLMConfig
        from lolama_vision.llava import LLaVA

        checked = VLMConfig.from_json(config)
        text = build_text(checked.text_config)
        with torch.device("meta"):
            return LLaVA(checked, text)

    def image_processor(self, config: Mapping[str, JSON]) -> CLIPImageProcessor:
        """The processor for this model's pictures.

        Raises:
            ModelError: for a configuration that makes no sense.
        """
        from lolama_vision.config import VLMConfig
        from lolama_vision.image_processor import CLIPImageProcessor

        return CLIPImageProcessor(VLMConfig.from_json(config).vision_config)
