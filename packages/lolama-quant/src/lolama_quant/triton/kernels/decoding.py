"""Both parts of a step between its products, for the old name ``lolama_quant.triton_kernels.decoding``."""

from lolama_quant.triton.kernels.attention import attend
from lolama_quant.triton.kernels.rotation import rotate_and_store

__all__ = ["attend", "rotate_and_store"]
