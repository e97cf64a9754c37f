"""The safetensors format, checked before it is believed.

A file is eight bytes that say how long the header is (little-endian), the header (JSON), and the data.
The header gives each tensor's dtype, shape and place in the data; the places must cover the data exactly.
Format: https://github.com/huggingface/safetensors#format

The reader stands here, and not the ``safetensors`` package, because that one maps every file into memory
(one cut short afterwards then kills the process), allows headers of 100 MB, and leaves a caller to guess
what was wrong.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_core.protocols.types import JSON
from lolama_core.untrusted_files import (
    DOWNLOAD_AGAIN,
    decode_utf8,
    impostor,
    open_regular,
    parse_json_object,
    quote,
)

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 16
LENGTH_BYTES = 8
METADATA_KEY = "__metadata__"

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
"""What the format calls a dtype → what torch calls it."""

DTYPE_NAMES: Mapping[torch.dtype, str] = MappingProxyType(
    {dtype: name for name, dtype in DTYPES.items()}
)

_OWN_PAGES_BYTES = 256 * 2**10
_READ_BYTES = 2 * 2**20  # one system call's worth, and one huge page's
_READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file. ``begin`` and ``end`` are bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A checked safetensors file. `read` copies a tensor out of it; `map` is for files that cannot change.

    The file is open only during the constructor and each of these, so there is nothing to close. A file
    that changed in between is an error, not a mixture of two files.

    Args:
        path: The file.

    Raises:
        ModelError: if it is anything but a whole, well-formed safetensors file; the message says what
            was found.

    Example:
        >>> file = SafetensorsFile(Path("model.safetensors"))
        >>> file.header()["norm.weight"].shape
        (4096,)
        >>> weight = file.read("norm.weight")
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            self._identity = (status.st_size, status.st_mtime_ns)
            raw = _read_header(file, status.st_size, str(path))
        self._data_start = LENGTH_BYTES + len(raw)
        parsed = parse_json_object(decode_utf8(raw, str(path)), str(path))
        self.metadata = _metadata(parsed.pop(METADATA_KEY, {}), str(path))
        self._tensors = _tensors(parsed, status.st_size - self._data_start, str(path))

    def header(self) -> Mapping[str, TensorInfo]:
        """Tensor name → dtype, shape and place."""
        return MappingProxyType(self._tensors)

    def read(self, key: str) -> Tensor:
        """One tensor, in memory of its own on the CPU.

        Raises:
            KeyError: if the header does not name ``key``.
            ModelError: if the file changed or shrank since its header was read.
            ResourceError: if there is no memory for it.
        """
        info = self._tensors[key]
        size = info.end - info.begin
        with self._open_unchanged() as file:
            try:
                data = _own_memory(size)
            except (RuntimeError, MemoryError, OSError):
                raise ResourceError(
                    str(self.path),
                    f"no memory for tensor {quote(key)} of {size / 2**20:,.0f} MiB",
                    "close other programs or use a smaller model",
                ) from None
            _read_into(file, self._data_start + info.begin, byte_view(data), str(self.path))
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
        info = self._tensors[key]
        size, begin = info.end - info.begin, self._data_start + info.begin
        if size == 0 or begin % DTYPES[info.dtype].itemsize:
            return self.read(key)
        inside = begin % mmap.ALLOCATIONGRANULARITY
        with self._open_unchanged() as file:
            try:
                # Of this tensor alone, so that the memory goes when the tensor does.
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
            if (status.st_size, status.st_mtime_ns) != self._identity:
                raise ModelError(
                    str(self.path), "changed while it was being read", "load the model again"
                )
            yield file

    def _shaped(self, key: str, data: Tensor) -> Tensor:
        """A tensor's bytes as what the header says they are."""
        info = self._tensors[key]
        if info.dtype == "BOOL" and data.numel() and int(data.max()) > 1:
            raise ModelError(
                str(self.path), f"tensor {quote(key)} holds booleans that are neither 0 nor 1"
            )
        return data.view(DTYPES[info.dtype]).reshape(info.shape)


def _own_memory(size: int) -> Tensor:
    """``size`` bytes that go back to the system when the tensor goes.

    What malloc is given back it keeps, in pieces between the tensors that stay. A model that is converted
    while it loads would fill half its size again with holes.
    """
    if size < _OWN_PAGES_BYTES:
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Decoding streams through all weights for each token, which huge pages make up to a third faster.
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def byte_view(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor as writable bytes; valid while ``tensor`` lives."""
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")


def _read_into(file: io.FileIO, offset: int, target: memoryview, subject: str) -> None:
    """Fill ``target`` with the bytes of the file from ``offset`` on.

    Much is read by several threads: most of the time goes into making the pages, each of which waits for
    the system.
    """

    def read(start: int) -> None:
        part = target[start : start + _READ_BYTES]
        while len(part):
            count = os.preadv(file.fileno(), [part], offset + start)
            if not count:
                missing = offset + len(target) - os.fstat(file.fileno()).st_size
                raise ModelError(subject, f"ends {missing} bytes too early", DOWNLOAD_AGAIN)
            part, start = part[count:], start + count

    starts = range(0, len(target), _READ_BYTES)
    if len(starts) < 2:
        for start in starts:
            read(start)
        return
    with ThreadPoolExecutor(_READERS, "lolama-read") as readers:
        try:
            for _ in readers.map(read, starts):
                pass
        except BaseException:
            readers.shutdown(cancel_futures=True)  # Ctrl-C waits for what has begun, no more
            raise


def _read_header(file: io.FileIO, size: int, subject: str) -> bytes:
    """The raw header. Only a file that cannot be safetensors is compared with what else it might be."""
    head = bytearray(min(size, 512))
    _read_into(file, 0, memoryview(head), subject)
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    fits = size > LENGTH_BYTES and 0 < length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES)
    if not fits or head[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        found = impostor(bytes(head))
        if found:
            raise ModelError(subject, *found)
        raise ModelError(subject, _what_is_wrong(size, length), DOWNLOAD_AGAIN)
    raw = bytearray(length)
    _read_into(file, LENGTH_BYTES, memoryview(raw), subject)
    # Counted before parsing: building 300,000 entries only to refuse them would take seconds.
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise ModelError(subject, f"holds more than {MAX_TENSORS:,} tensors, the limit")
    return bytes(raw)


def _what_is_wrong(size: int, length: int) -> str:
    if size < LENGTH_BYTES:
        return f"is {size} bytes long; a safetensors file has at least {LENGTH_BYTES}"
    if length == 0:
        return "says that its header is 0 bytes long"
    if length > MAX_HEADER_BYTES:
        limit = MAX_HEADER_BYTES // 2**20
        return f"says that its header is {length} bytes long; the limit is {limit} MiB"
    if length > size - LENGTH_BYTES:
        return f"is cut short: {size} bytes, of which the header alone should fill {length}"
    return "has a header that is not a JSON object"


def _metadata(value: JSON, subject: str) -> Mapping[str, str]:
    """The file's free-form block: text to text, by the format."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ModelError(subject, f"{METADATA_KEY} is not a mapping of text to text")
    return MappingProxyType({key: str(text) for key, text in value.items()})


def _tensors(header: dict[str, JSON], data_bytes: int, subject: str) -> dict[str, TensorInfo]:
    """Check each entry by itself, then that together they cover the data exactly."""
    if len(header) > MAX_TENSORS:
        raise ModelError(subject, f"holds {len(header):,} tensors; the limit is {MAX_TENSORS:,}")
    tensors = {}
    for name, entry in header.items():
        try:
            tensors[name] = _tensor(entry)
        except ValueError as error:
            reason = f"tensor {quote(name)} {error}"
            raise ModelError(subject, reason, DOWNLOAD_AGAIN) from None
    position, before = 0, "the start"
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            what = "overlaps" if info.begin < position else "leaves a gap after"
            raise ModelError(subject, f"tensor {quote(name)} {what} {before}", DOWNLOAD_AGAIN)
        position, before = info.end, quote(name)
    if position > data_bytes:
        reason = f"is cut short: {data_bytes} bytes of data where its header describes {position}"
        raise ModelError(subject, reason, DOWNLOAD_AGAIN)
    if position < data_bytes:
        reason = f"has {data_bytes - position} bytes after the last tensor"
        raise ModelError(subject, reason, DOWNLOAD_AGAIN)
    return tensors


def _tensor(entry: JSON) -> TensorInfo:
    """One header entry; ValueError says what is wrong with it."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("is not described by dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"has the dtype {quote(str(dtype))}, which is not known here")
    shape = _whole_numbers(entry["shape"], "shape")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"has {len(shape)} dimensions; the limit is {MAX_DIMENSIONS}")
    offsets = _whole_numbers(entry["data_offsets"], "data_offsets")
    if len(offsets) != 2:
        raise ValueError(f"has {len(offsets)} data_offsets instead of 2")
    begin, end = offsets
    if end < begin:
        raise ValueError(f"ends at byte {end}, before its start at {begin}")
    # Zeros are left out of this product: torch multiplies the other sizes all the same.
    if prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize >= 2**63:
        raise ValueError(f"has the impossible shape {quote(str(shape))}")
    needed = prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        what = f"{dtype} of shape {quote(str(shape))}"
        raise ValueError(f"has {end - begin} bytes, but {what} needs {needed}")
    return TensorInfo(dtype, shape, begin, end)


def _whole_numbers(value: JSON, field: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"has a {field} that is not a list")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
            raise ValueError(f"has {quote(str(number))} in its {field}")
    return tuple(number for number in value if isinstance(number, int))
