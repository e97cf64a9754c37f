"""Models and what is done with them: ``from lolama.model import TextGenerator``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lolama_core import (
    GenerationConfig,
    Llama,
    LlamaConfig,
    PrefixCache,
    TextGenerator,
    forget,
    installed_quantizer,
)
from lolama_core.protocols import CausalLM
from lolama_core.protocols.lazy_names import directory
from lolama_core.protocols.quantizer import QuantizationReport, QuantizationScheme
from lolama_quant import get_model_size_mb as _size_mb

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "GenerationConfig",
    "Llama",
    "LlamaConfig",
    "PrefixCache",
    "TextGenerator",
    "get_model_size_mb",
    "quantize_model_int8",
]
__dir__ = directory(__name__, __all__)


def quantize_model_int8(model: nn.Module | CausalLM) -> QuantizationReport:
    """Store the linear weights of ``model`` as 8-bit integers, in place.

    Embeddings and ``lm_head`` keep their precision.

    Raises:
        ModelError: naming the weight, if one holds NaN or Inf.
        UsageError: if the model is quantized already, or has no linear layers.
    """
    module = cast("nn.Module", model)
    report = installed_quantizer("int8").quantize_(module, QuantizationScheme(name="int8"))
    forget(cast(CausalLM, model))  # which lets go of the weights that were swapped
    return report


def get_model_size_mb(model: nn.Module | CausalLM) -> float:
    """Parameters and buffers of ``model`` in MB (10^6 bytes); what is tied counts once."""
    return _size_mb(cast("nn.Module", model))
