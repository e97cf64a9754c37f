"""Which products grouped weights take on each kind of device, in words. `product` has the products."""

from __future__ import annotations

from lolama_quant.cpu.library import INT8_INSTRUCTION_SETS, native_library
from lolama_quant.int8.description import DEVICES as DEVICES
from lolama_quant.triton.compiler import describe_triton, has_triton


def describe(device_type: str) -> str:
    """Which products are used on a device of this type, and why."""
    if device_type == "cuda":
        return _describe_cuda()
    if device_type == "mps":
        return "a Metal kernel, not run on a GPU yet; many rows widened"
    if device_type != "cpu":
        return "weights widened, then torch's product"
    library = native_library()
    if isinstance(library, str):
        return f"weights widened to float32 (the native operator is {library})"
    return f"native, {INT8_INSTRUCTION_SETS[library.int8_instruction_set]}"


def _describe_cuda() -> str:
    if has_triton():
        return "a Triton kernel, not run on a GPU yet; many rows of float32 widened"
    return f"weights widened: {describe_triton()}"
