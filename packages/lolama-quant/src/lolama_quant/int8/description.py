"""Which products int8 weights take on each kind of device, in words. `backends` has the products.

Asked by reports, which need no torch for it: where torch's own products are taken on a CPU, and it depends on
the processor which, they import it.
"""

from __future__ import annotations

import platform

from lolama_quant.cpu.library import (
    ANY_ROWS,
    INT8_INSTRUCTION_SETS,
    int8_rows,
    native_library,
)
from lolama_quant.triton.compiler import describe_triton, has_triton

DEVICES = ("cpu", "cuda", "mps")

CPU_FEW_ROWS = 8
"""Up to this many rows, widening weights in registers is a small part of a product."""

CUDA_FEW_ROWS = 16
"""Rows of one tile of a tensor core."""


def describe(device_type: str) -> str:
    """Which products are used on a device of this type, and why."""
    if device_type == "cpu":
        return _describe_cpu()
    if device_type == "cuda":
        return _describe_cuda()
    if device_type == "mps":
        return "a Metal kernel for every number of rows"
    return "weights widened, then torch's product"


def _describe_cpu() -> str:
    library, rows = native_library(), int8_rows()
    if isinstance(library, str):
        return f"{_describe_torch()} (the native operator is {library})"
    native = f"native, {INT8_INSTRUCTION_SETS[library.int8_instruction_set]}"
    if rows == ANY_ROWS:
        return native
    return f"up to {rows} rows {native}; more rows {_describe_torch()}"


def _describe_torch() -> str:
    few = ""
    if platform.machine().lower() in ("x86_64", "amd64"):  # elsewhere torch has neither
        from lolama_quant.int8 import processor

        if processor.widens_in_registers():
            few = f"up to {CPU_FEW_ROWS} rows in bfloat16; more rows "
        if processor.multiplies_integers():
            return f"{few}by integer products (VNNI), activations quantized row by row"
    return (
        f"{few}with weights widened to float32: torch has no fast 8-bit products on this processor"
    )


def _describe_cuda() -> str:
    if has_triton():
        return f"a Triton kernel up to {CUDA_FEW_ROWS} rows, weights widened for more"
    return f"weights widened: {describe_triton()}"
