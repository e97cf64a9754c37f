"""Runs the texts of Metal kernels on the host, threadgroup by threadgroup, as they are launched on a GPU.

``with on_host():`` lets `lolama_quant.metal.shader` do so for tensors on the CPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from torch import Tensor

from lolama_quant.metal import int8_linear, shader

COMPILER = shutil.which("c++")
NO_COMPILER = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")

_MARGIN = 64
_LAUNCHER = """
struct Buffer {
    void *address;
    template <typename T> operator T *() const { return static_cast<T *>(address); }
};

extern "C" int launch(Buffer *buffers, unsigned groups, unsigned tiles) {
    for (unsigned tile = 0; tile < tiles; tile++)
        for (unsigned group = 0; group < groups; group++)
            for (unsigned simdgroup = 0; simdgroup < SIMDGROUPS; simdgroup++) {
                brought.clear();
                for (int pass = 0; pass < 2; pass++)
                    for (unsigned lane = 0; lane < LANES; lane++) {
                        summing = pass == 1;
                        which = 0;
                        KERNEL(BUFFERS, {group, tile, 0}, {lane, simdgroup, 0});
                    }
                for (auto &lanes : brought)
                    if (lanes.size() != LANES) return 1; // one of them never came: a GPU would hang
            }
    return 0;
}
"""


class HostLibrary:
    """What `torch.mps.compile_shader` would give: a kernel is an attribute."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, kernel: str) -> _HostKernel:
        return _HostKernel(self._text, kernel)


class _HostKernel:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name

    def __call__(
        self, *tensors: Tensor, threads: tuple[int, ...], group_size: tuple[int, ...]
    ) -> None:
        """Run it; the last tensor but one is what it writes."""
        assert group_size == (shader.LANES, shader.SIMDGROUPS, 1) and threads[2] == 1
        counts = [many // size for many, size in zip(threads, group_size, strict=True)]
        assert all(tensor.is_contiguous() for tensor in tensors)
        written = tensors[-2].fill_(77)  # so that what is left out shows
        # In the middle of others, so that what is read or written beside them shows.
        memory = [_surrounded(tensor) for tensor in tensors]
        addresses = [part.data_ptr() + _MARGIN * part.element_size() for part in memory]
        buffers = (ctypes.c_void_p * len(addresses))(*addresses)
        assert _compiled(self._text, self._name, len(tensors)).launch(buffers, *counts[:2]) == 0
        found = memory[-2]
        assert bool(found[:_MARGIN].isnan().all() and found[-_MARGIN:].isnan().all())
        written.copy_(found[_MARGIN:-_MARGIN].view(written.shape))


@contextmanager
def on_host() -> Iterator[None]:
    """Inside of it the products of `lolama_quant.metal` are taken by the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            shader, "library", lambda *name, **defined: HostLibrary(shader.source(*name, **defined))
        )
        yield


def linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`int8_linear.linear` for tensors on the CPU."""
    with on_host():
        return int8_linear.linear(x, weight, scale)


def _surrounded(tensor: Tensor) -> Tensor:
    """Its numbers with a margin at both ends: of NaN, or of ones."""
    beside = float("nan") if tensor.is_floating_point() else 1
    margin = torch.full((_MARGIN,), beside, dtype=tensor.dtype)
    return torch.cat((margin, tensor.flatten(), margin))


@cache
def _compiled(text: str, kernel: str, buffers: int) -> ctypes.CDLL:
    assert COMPILER is not None
    path = Path(mkdtemp()) / "kernel.so"
    flags = "-std=c++20 -O2 -shared -fPIC -fsigned-char -Wno-attributes -x c++".split()
    include = str(Path(__file__).with_name("metal_shim"))
    listed = ", ".join(f"buffers[{place}]" for place in range(buffers))
    launcher = _LAUNCHER.replace("KERNEL", kernel).replace("BUFFERS", listed)
    subprocess.run(
        [COMPILER, *flags, "-I", include, "-o", str(path), "-"],
        input=text + launcher,
        text=True,
        check=True,
    )
    return ctypes.CDLL(str(path))
