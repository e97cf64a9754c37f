"""Weights of eight and four bits for lolama: smaller, faster products, and what they cost in quality.

    from lolama_quant import Int8Quantizer, get_model_size_mb

    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    print(f"{get_model_size_mb(model):.0f} MB")

Names are imported when they are first used, so that finding the quantizer does not wait for torch.
"""

from typing import TYPE_CHECKING

from lolama_core.protocols import moved_modules
from lolama_core.protocols.lazy_names import lazy_names
from lolama_quant.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from lolama_quant.grouped.linear import GroupedLinear as GroupedLinear
    from lolama_quant.int4.calibration import quantize_blocks as quantize_blocks
    from lolama_quant.int4.convert import scheme_of as scheme_of
    from lolama_quant.int4.quantizer import Int4Quantizer as Int4Quantizer
    from lolama_quant.int4.sensitivity import Sensitivity as Sensitivity
    from lolama_quant.int4.sensitivity import sensitivity as sensitivity
    from lolama_quant.int8.linear import Int8Linear as Int8Linear
    from lolama_quant.int8.quantizer import Int8Quantizer as Int8Quantizer
    from lolama_quant.report import QualityReport as QualityReport
    from lolama_quant.report import default_text as default_text
    from lolama_quant.report import measure_quality as measure_quality
    from lolama_quant.size import get_model_size_mb as get_model_size_mb
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            ".grouped.linear": ["GroupedLinear"],
            ".int4.calibration": ["quantize_blocks"],
            ".int4.convert": ["scheme_of"],
            ".int4.quantizer": ["Int4Quantizer"],
            ".int4.sensitivity": ["Sensitivity", "sensitivity"],
            ".int8.linear": ["Int8Linear"],
            ".int8.quantizer": ["Int8Quantizer"],
            ".report": ["QualityReport", "default_text", "measure_quality"],
            ".size": ["get_model_size_mb"],
        },
    )

moved_modules.install(
    {
        **{
            f"lolama_quant.{name}": f"lolama_quant.int8.{name}"
            for name in (
                "absmax",
                "backends",
                "convert",
                "outliers",
                "quantizer",
                "rounded_activations",
            )
        },
        "lolama_quant.backends.cpu": "lolama_quant.int8.backends.cpu",
        "lolama_quant.backends.cuda": "lolama_quant.int8.backends.cuda",
        "lolama_quant.backends.metal": "lolama_quant.metal.int8_linear",
        "lolama_quant.backends.reference": "lolama_quant.int8.backends.reference",
        "lolama_quant.decoder_kernel": "lolama_quant.cpu.decoder",
        "lolama_quant.int8_kernel": "lolama_quant.cpu.int8_linear",
        "lolama_quant.int8_linear": "lolama_quant.int8.linear",
        "lolama_quant.int8_products": "lolama_quant.int8.description",
        "lolama_quant.native_library": "lolama_quant.cpu.library",
        "lolama_quant.native_linear": "lolama_quant.cpu.linear",
        "lolama_quant.triton_compiler": "lolama_quant.triton.compiler",
        "lolama_quant.triton_decoder_kernel": "lolama_quant.triton.decoder_kernel",
        "lolama_quant.triton_kernels": "lolama_quant.triton.kernels",
        **{
            f"lolama_quant.triton_kernels.{name}": f"lolama_quant.triton.kernels.{name}"
            for name in ("decoding", "overlap", "products")
        },
    }
)
