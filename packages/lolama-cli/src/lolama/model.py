"""Models and what is done with them: ``from lolama.model import TextGenerator``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lolama.quantize_options import EMBEDDING_BITS, LM_HEAD_BITS, int4_scheme
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
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
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
    "quantize_model_int4",
    "quantize_model_int8",
]
__dir__ = directory(__name__, __all__)


def quantize_model_int8(model: nn.Module | CausalLM) -> QuantizationReport:
    """Store the linear weights of ``model`` as 8-bit integers, in place.

    Embeddings and ``lm_head`` keep their precision.

    Raises:
        ModelError: naming the weight, if one holds NaN or Inf.
        UsageError: if the model is quantized already, or has no linear layers; for what is no torch module.
    """
    return _quantize_(model, QuantizationScheme(name="int8"))


def quantize_model_int4(
    model: nn.Module | CausalLM,
    *,
    embedding_bits: int = EMBEDDING_BITS[0],
    lm_head_bits: int = LM_HEAD_BITS[0],
) -> QuantizationReport:
    """Store the linear weights of ``model`` in four bits, in place, without calibration.

    Args:
        model: A dense model.
        embedding_bits: What the embedding gets: 4, or 16, its own precision.
        lm_head_bits: What ``lm_head`` gets: 4, 8 or 16. One that is tied to the embedding stays so if both
            get as many.

    Raises:
        ModelError: naming the weight, if one holds NaN or Inf.
        UsageError: if the model is quantized already, or has no ``embed_tokens`` or ``lm_head`` to quantize;
            for other numbers of bits; for what is no torch module.
    """
    scheme = int4_scheme(embedding_bits, lm_head_bits)
    names = {name.rpartition(".")[2] for name, _ in _module(model).named_modules()}
    for name in scheme.formats:
        if name not in names:
            raise UsageError("model", f"has no {name}", "give a language model, or use 8 bits")
    return _quantize_(model, scheme)


def _quantize_(model: nn.Module | CausalLM, scheme: QuantizationScheme) -> QuantizationReport:
    report = installed_quantizer(scheme.name).quantize_(_module(model), scheme)
    forget(cast(CausalLM, model))  # which lets go of the weights that were swapped
    return report


def get_model_size_mb(model: nn.Module | CausalLM) -> float:
    """Parameters and buffers of ``model`` in MB (10^6 bytes); what is tied counts once.

    Raises:
        UsageError: for what is no torch module.
    """
    return _size_mb(_module(model))


def _module(model: object) -> nn.Module:
    """The same as a torch module, which it is to be.

    Raises:
        UsageError: if it is none.
    """
    from torch import nn

    if not isinstance(model, nn.Module):
        remedy = "give what load_model() returns, or the model of what load() returns"
        raise UsageError("model", f"{shown(model)} is no torch module", remedy)
    return model
