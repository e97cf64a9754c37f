"""The tensors of a file whose header has been read, safetensors or GGUF: copied out of it, or mapped."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType

import torch
from torch import Tensor

from lolama_core.files.gguf_header import GGUFHeader
from lolama_core.files.gguf_types import row_bytes
from lolama_core.files.parallel_read import read_into
from lolama_core.files.safetensors_header import (
    SafetensorsHeader,
    TensorInfo,
    is_same_content,
)
from lolama_core.files.untrusted import open_regular
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, ResourceError

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I16": torch.int16,
        "U16": torch.uint16,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I32": torch.int32,
        "U32": torch.uint32,
        "F32": torch.float32,
        "I64": torch.int64,
        "U64": torch.uint64,
        "F64": torch.float64,
    }
)
"""What safetensors and GGUF call a dtype → what torch calls it. Types of GGUF with blocks are not here."""

DTYPE_NAMES: Mapping[torch.dtype, str] = MappingProxyType(
    {dtype: name for name, dtype in DTYPES.items()}
)

_OWN_PAGES_BYTES = 256 * 2**10


class TensorFile:
    """A file with tensors. `read` copies one out of it; `map` is for files that cannot change.

    The file is open only during each of these, so there is nothing to close. A file that changed since its
    header was read is an error, not a mixture of two files.

    Blocks of GGUF stay as they are: such a tensor is uint8, and its last size is the bytes of a row.

    Args:
        header: What `safetensors_header.read_header` or `gguf_header.read_gguf_header` found.

    Example:
        >>> TensorFile(read_gguf_header(Path("model-Q4_K_M.gguf"))).read("blk.0.attn_q.weight").shape
        torch.Size([4096, 2304])
    """

    def __init__(self, header: SafetensorsHeader | GGUFHeader) -> None:
        self._header = header
        self.path = header.path

    def header(self) -> Mapping[str, TensorInfo]:
        """Tensor name → dtype, shape and place."""
        return self._header.tensors

    def read(self, key: str) -> Tensor:
        """One tensor, in memory of its own on the CPU.

        Raises:
            KeyError: if the header does not name ``key``.
            ModelError: if the file changed or shrank since its header was read.
            ResourceError: if there is no memory for it.
        """
        info = self._header.tensors[key]
        size = info.end - info.begin
        with self._open_unchanged() as file:
            try:
                data = _own_memory(size)
            except (RuntimeError, MemoryError, OSError):
                raise ResourceError(
                    str(self.path),
                    f"no memory for tensor {shown(key)} of {size / 2**20:,.0f} MiB",
                    "close other programs or use a smaller model",
                ) from None
            read_into(file, self._header.data_start + info.begin, byte_view(data), str(self.path))
        return self._shaped(key, data)

    def map(self, key: str) -> Tensor:
        """One tensor that is the file itself, mapped into memory for as long as the tensor lives.

        Nothing is copied, and pages come from the disk when they are touched. The map is private: a write
        to the tensor copies the page it falls on and never reaches the file.

        Only for a file that nobody shortens meanwhile: where the bytes under a map are gone, the next look
        at them kills the process. A tensor that the format left on an odd address, which no processor
        multiplies at speed, and one on a file system without maps are read instead.

        Raises:
            KeyError: if the header does not name ``key``.
            ModelError: if the file changed since its header was read.
            ResourceError: if it has to be read and there is no memory for it.
        """
        info = self._header.tensors[key]
        size, begin = info.end - info.begin, self._header.data_start + info.begin
        if size == 0 or begin % DTYPES.get(info.dtype, torch.uint8).itemsize:
            return self.read(key)
        inside = begin % mmap.ALLOCATIONGRANULARITY
        with self._open_unchanged() as file:
            try:
                # The map is of this tensor alone, so that the memory goes when the tensor does.
                pages = mmap.mmap(
                    file.fileno(), inside + size, access=mmap.ACCESS_COPY, offset=begin - inside
                )
            except OSError:
                return self.read(key)
        return self._shaped(
            key, torch.frombuffer(pages, dtype=torch.uint8, count=size, offset=inside)
        )

    @contextmanager
    def _open_unchanged(self) -> Iterator[io.FileIO]:
        """The file, if it is still the one whose header was read."""
        with open_regular(self.path) as file:
            status = os.fstat(file.fileno())
            if not is_same_content(self._header.status, status):
                raise ModelError(
                    str(self.path), "changed while it was being read", "load the model again"
                )
            yield file

    def _shaped(self, key: str, data: Tensor) -> Tensor:
        """A tensor's bytes as what the header says they are."""
        info = self._header.tensors[key]
        if info.dtype == "BOOL" and data.numel() and int(data.max()) > 1:
            raise ModelError(
                str(self.path), f"tensor {shown(key)} holds booleans that are neither 0 nor 1"
            )
        if info.dtype in DTYPES:
            return data.view(DTYPES[info.dtype]).reshape(info.shape)
        *outer, inner = info.shape
        return data.reshape(*outer, row_bytes(info.dtype, inner))


def _own_memory(size: int) -> Tensor:
    """``size`` bytes that go back to the system when the tensor goes.

    What malloc is given back it keeps, in pieces between the tensors that stay. A model that is converted
    while it loads would fill half its size again with holes.
    """
    if size < _OWN_PAGES_BYTES:
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    pages = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Decoding streams through all weights for each token, which huge pages make up to a third faster.
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def byte_view(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor as writable bytes; valid while ``tensor`` lives."""
    assert tensor.is_contiguous() and not tensor.is_neg() and tensor.device.type == "cpu"
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")
