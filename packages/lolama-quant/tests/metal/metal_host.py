"""Runs the text of the Metal kernel on the host, threadgroup by threadgroup, as it is launched on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor

from lolama_quant.metal import int8_linear as metal

COMPILER = shutil.which("c++")

_LAUNCHER = """
extern "C" int launch(const SCALAR *x, const char *weight, const float *scale, SCALAR *y, const int *sizes,
                      unsigned groups, unsigned tiles) {
    for (unsigned tile = 0; tile < tiles; tile++)
        for (unsigned group = 0; group < groups; group++)
            for (unsigned simdgroup = 0; simdgroup < SIMDGROUPS; simdgroup++) {
                brought.clear();
                for (int pass = 0; pass < 2; pass++)
                    for (unsigned lane = 0; lane < HOST_LANES; lane++) {
                        summing = pass == 1;
                        which = 0;
                        int8_linear(x, weight, scale, y, sizes, {group, tile, 0}, {lane, simdgroup, 0});
                    }
                for (auto &lanes : brought)
                    if (lanes.size() != HOST_LANES) return 1; // one of them never came: a GPU would hang
            }
    return 0;
}
"""


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`metal.linear` for tensors on the CPU."""
    rows, inputs = x.shape
    outputs = len(weight)
    # Filled, so that what the kernel leaves out shows; with a margin, so that what it writes too much does.
    y = torch.full((rows * outputs + 64,), 77.0, dtype=x.dtype)
    sizes = torch.tensor([rows, inputs, outputs], dtype=torch.int32)
    x, weight = x.contiguous(), weight.contiguous()
    addresses = [tensor.data_ptr() for tensor in (x, weight, scale, y, sizes)]
    status = _library(x.dtype).launch(*map(ctypes.c_void_p, addresses), *metal.grid(rows, outputs))
    assert status == 0
    assert bool((y[rows * outputs :] == 77).all())
    return y[: rows * outputs].reshape(rows, outputs)


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL:
    assert COMPILER is not None
    path = Path(mkdtemp()) / "kernel.so"
    flags = "-std=c++20 -O2 -shared -fPIC -fsigned-char -Wno-attributes -x c++".split()
    include = str(Path(__file__).with_name("metal_shim"))
    subprocess.run(
        [COMPILER, *flags, "-I", include, "-o", str(path), "-"],
        input=metal.source(dtype) + _LAUNCHER,
        text=True,
        check=True,
    )
    return ctypes.CDLL(str(path))
