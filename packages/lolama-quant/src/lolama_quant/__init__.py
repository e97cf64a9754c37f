"""int8 for lolama: smaller weights, faster products, and what they cost in quality.

    from lolama_quant import Int8Quantizer, get_model_size_mb

    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    print(f"{get_model_size_mb(model):.0f} MB")

Names are imported when they are first used, so that finding the quantizer does not wait for torch.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols.lazy_names import lazy_names
from lolama_quant.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from lolama_quant.int8_linear import Int8Linear as Int8Linear
    from lolama_quant.quantizer import Int8Quantizer as Int8Quantizer
    from lolama_quant.report import QualityReport as QualityReport
    from lolama_quant.report import default_text as default_text
    from lolama_quant.report import measure_quality as measure_quality
    from lolama_quant.size import get_model_size_mb as get_model_size_mb
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".int8_linear": ["Int8Linear"],
            ".quantizer": ["Int8Quantizer"],
            ".report": ["QualityReport", "default_text", "measure_quality"],
            ".size": ["get_model_size_mb"],
        },
    )
