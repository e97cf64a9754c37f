"""int8 for lolama: smaller weights, faster products, and what they cost in quality.

    from lolama_quant import Int8Quantizer, get_model_size_mb

    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    print(f"{get_model_size_mb(model):.0f} MB")

Names are imported when they are first used, so that finding the quantizer does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lolama_quant.__about__ import __version__
from lolama_quant.quantizer import Int8Quantizer

if TYPE_CHECKING:
    from lolama_quant.int8_linear import Int8Linear
    from lolama_quant.report import QualityReport, default_text, measure_quality
    from lolama_quant.size import get_model_size_mb

_HOME = {
    "Int8Linear": "int8_linear",
    "QualityReport": "report",
    "default_text": "report",
    "get_model_size_mb": "size",
    "measure_quality": "report",
}

__all__ = [
    "Int8Linear",
    "Int8Quantizer",
    "QualityReport",
    "__version__",
    "default_text",
    "get_model_size_mb",
    "measure_quality",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
