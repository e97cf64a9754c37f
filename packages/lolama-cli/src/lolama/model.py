"""Models and what is done with them: ``from lolama.model import TextGenerator``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lolama.providers import quantizer
from lolama.wiring import INT8
from lolama_core import GenerationConfig, Llama, LlamaConfig, PrefixCache, TextGenerator

if TYPE_CHECKING:
    from torch import nn

    from lolama_core.protocols.types import QuantizationReport

__all__ = [
    "GenerationConfig",
    "Llama",
    "LlamaConfig",
    "PrefixCache",
    "TextGenerator",
    "quantize_model_int8",
]


def quantize_model_int8(model: nn.Module) -> QuantizationReport:
    """Store the linear weights of ``model`` as 8-bit integers, in place. Not in this version.

    Raises:
        NotAvailableError: always, in this version; the model is as it was.
    """
    return quantizer("int8").quantize_(model, INT8)
