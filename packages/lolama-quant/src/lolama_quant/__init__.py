"""Smaller weights for lolama: the quantizer ``int8``.

This version registers the quantizer and quantises nothing yet; see `Int8Quantizer`.
"""

from lolama_quant.__about__ import __version__
from lolama_quant.quantizer import Int8Quantizer

__all__ = ["Int8Quantizer", "__version__"]
