"""The header of a GGUF file, checked before it is believed. Nothing here needs torch.

A file is the letters GGUF, a version, how many tensors and how many keys there are, the keys with their
values, the tensors' names, shapes, types and places, and the data. All numbers are little-endian.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from types import MappingProxyType

from lolama_core.files.gguf_types import GIVEN_UP, TYPES, row_bytes
from lolama_core.files.gguf_values import UINT32, UINT64, GGUFValues
from lolama_core.files.safetensors_header import MAX_TENSORS, TensorInfo, is_same_content
from lolama_core.files.untrusted import DOWNLOAD_AGAIN, impostor, open_regular
from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.checks import is_integer, shown
from lolama_core.protocols.errors import ModelError

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 128 * 2**20
"""A vocabulary of 262,144 tokens with its merges, and the same once more as JSON, is about 60 MB."""

MAX_KEYS = 10_000
MAX_NAME_BYTES = 65_535
MAX_DIMENSIONS = 4
MAX_NUMBERS = 1 << 16
"""Values of a tensor that `GGUFHeader.numbers` reads, such as factors of rotary pairs: some hundreds."""

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32

_BEFORE_GGUF = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt, ggla, little-endian
_CONVERT_AGAIN = "convert the model anew with llama.cpp, or find a newer conversion of it"


@dataclass(frozen=True)
class GGUFHeader:
    """What the header of one file says: a `protocols.GGUFHeader`.

    Attributes:
        path: The file.
        version: The version of the format, 2 or 3, which differ in nothing here.
        metadata: Key → value.
        tensors: Tensor name → type, shape (outermost first) and place.
        data_start: Bytes from the start of the file to that of the data.
        status: The status of the file whose header this is, at that time.
    """

    path: Path
    version: int
    metadata: Mapping[str, GGUFValue]
    tensors: Mapping[str, TensorInfo]
    data_start: int
    status: os.stat_result

    def numbers(self, name: str) -> list[float]:
        """The values of a small F32 tensor.

        Raises:
            ModelError: if it is another one, if the file is not as it was, or if a value is NaN or infinite.
        """
        info = self.tensors[name]
        if info.dtype != "F32" or prod(info.shape) > MAX_NUMBERS:
            reason = f"tensor {shown(name)} is {info.dtype} of shape {info.shape}"
            raise ModelError(
                str(self.path), f"{reason}, expected F32 and at most {MAX_NUMBERS:,} values"
            )
        with open_regular(self.path) as file:
            file.seek(self.data_start + info.begin)
            content = file.read(info.end - info.begin)
            if not is_same_content(self.status, os.fstat(file.fileno())):
                reason = "changed while it was being read"
                raise ModelError(str(self.path), reason, "load the model again")
        found = list(struct.unpack(f"<{len(content) // 4}f", content[: len(content) // 4 * 4]))
        if len(found) != prod(info.shape) or not all(map(isfinite, found)):
            reason = f"tensor {shown(name)} holds NaN or Inf, or is cut short"
            raise ModelError(str(self.path), reason, DOWNLOAD_AGAIN)
        return found


def read_gguf_header(path: Path, max_bytes: int = MAX_HEADER_BYTES) -> GGUFHeader:
    """The checked header of a file; no weight is read.

    Args:
        path: The file.
        max_bytes: How long its header may be.

    Raises:
        ModelError: if it is anything but a whole, well-formed GGUF file; the message says what was found.

    Example:
        >>> read_gguf_header(Path("model-Q4_K_M.gguf")).tensors["blk.0.attn_q.weight"].shape
        (4096, 4096)
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        values = GGUFValues(file, status.st_size, str(path), max_bytes)
        version = _version(values, status.st_size)
        tensor_count, key_count = values.number(UINT64), values.number(UINT64)
        for count, what, limit in (
            (tensor_count, "tensors", MAX_TENSORS),
            (key_count, "keys", MAX_KEYS),
        ):
            if count > limit:
                raise values.refused(f"says that it holds {count:,} {what}; the limit is {limit:,}")
        metadata = _metadata(values, key_count)
        alignment = _alignment(values, metadata)
        tensors = _tensors(values, tensor_count, alignment)
    data_start = -(-values.position // alignment) * alignment
    _check_places(tensors, status.st_size - data_start, str(path))
    header = GGUFHeader(
        path, version, MappingProxyType(metadata), MappingProxyType(tensors), data_start, status
    )
    _remember(header)
    return header


def read_gguf_tensors(path: Path) -> GGUFHeader:
    """The header without the metadata: a vocabulary would take its memory for as long as weights are read.

    Of a file that this process has read before, and that is the same file still, what was found then.

    Raises:
        ModelError: as `read_gguf_header`.
    """
    known = _KNOWN.get(path)
    if known is not None:
        with open_regular(path) as file:
            if _identity(known.status) == _identity(os.fstat(file.fileno())):
                return known
    return replace(read_gguf_header(path), metadata={})


_KNOWN: dict[Path, GGUFHeader] = {}
_MOST_KNOWN = 1024
_SECONDS_TO_TELL = (
    2.0  # a file that is written twice between two ticks of the clock has one time of change
)


def _remember(header: GGUFHeader) -> None:
    if time.time() - header.status.st_ctime < _SECONDS_TO_TELL:
        return
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[header.path] = replace(header, metadata={})


def _identity(status: os.stat_result) -> tuple[int, ...]:
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF does.

    Raises:
        ModelError: as `untrusted.open_regular`.
    """
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def _version(values: GGUFValues, size: int) -> int:
    """The version. Only a file that cannot be GGUF is compared with what else it might be."""
    head = values.raw(min(size, 512))
    if not head.startswith(MAGIC):
        if head[:4] in _BEFORE_GGUF:
            reason = "is a model in GGML, which llama.cpp wrote before GGUF"
            raise ModelError(values.subject, reason, _CONVERT_AGAIN)
        found = impostor(head) or ("is not a GGUF file, which begins with GGUF", DOWNLOAD_AGAIN)
        raise ModelError(values.subject, *found)
    values.position = len(MAGIC)
    version = values.number(UINT32)
    if version and version % 2**16 == 0:
        reason = "is a GGUF file for big-endian machines, which lolama does not read"
        raise ModelError(values.subject, reason, "use the little-endian one")
    if version not in (2, 3):
        reason = f"is GGUF of version {version}; versions 2 and 3 are read"
        raise ModelError(values.subject, reason, _CONVERT_AGAIN if version < 2 else "")
    return version


def _metadata(values: GGUFValues, count: int) -> dict[str, GGUFValue]:
    metadata: dict[str, GGUFValue] = {}
    for _ in range(count):
        key = _name(values, "key")
        if key in metadata:
            raise values.refused(f"holds the key {shown(key)} twice")
        kind = values.number(UINT32)
        if key == ALIGNMENT_KEY and kind != UINT32:
            raise values.refused(f"has a value of another type than uint32 for {ALIGNMENT_KEY}")
        metadata[key] = values.value(key, kind)
    return metadata


def _name(values: GGUFValues, what: str) -> str:
    start = values.position
    name = values.text()
    if values.position - start - 8 > MAX_NAME_BYTES:
        raise values.refused(f"has a {what} of more than {MAX_NAME_BYTES:,} bytes, the limit")
    if not name:
        raise values.refused(f"has a {what} without a name")
    return name


def _alignment(values: GGUFValues, metadata: Mapping[str, GGUFValue]) -> int:
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if not is_integer(alignment, 1) or alignment & (alignment - 1):
        raise values.refused(f"has {shown(alignment)} for {ALIGNMENT_KEY}, no power of two")
    return alignment


def _tensors(values: GGUFValues, count: int, alignment: int) -> dict[str, TensorInfo]:
    """Check each tensor by itself."""
    tensors: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = _name(values, "tensor")
        if name in tensors:
            raise values.refused(f"holds the tensor {shown(name)} twice")
        dimensions = values.number(UINT32)
        if dimensions > MAX_DIMENSIONS:
            reason = f"has {dimensions} dimensions; the limit is {MAX_DIMENSIONS}"
            raise values.refused(f"tensor {shown(name)} {reason}")
        sizes = [int(size) for size in values.numbers(UINT64, dimensions)]
        kind, begin = values.number(UINT32), values.number(UINT64)
        if kind in GIVEN_UP:
            reason = f"tensor {shown(name)} is {GIVEN_UP[kind]}, which llama.cpp gave up"
            raise ModelError(values.subject, reason, _CONVERT_AGAIN)
        try:
            tensors[name] = _tensor(kind, tuple(reversed(sizes)), begin, alignment)
        except ValueError as error:
            raise values.refused(f"tensor {shown(name)} {error}") from None
    return tensors


def _tensor(kind: int, shape: tuple[int, ...], begin: int, alignment: int) -> TensorInfo:
    """What a header says of one tensor; ValueError says what is wrong with it."""
    if kind not in TYPES:
        raise ValueError(f"is of type {kind}, which is not known here")
    dtype, block, _ = TYPES[kind]
    if begin % alignment:
        raise ValueError(f"begins at {shown(begin)}, no multiple of {alignment}")
    # The innermost size is that of a row, also of a tensor without dimensions.
    *outer, inner = shape or (1,)
    if inner % block:
        raise ValueError(f"has rows of {inner} values; {dtype} has blocks of {block}")
    # Zeros are left out of this product: torch multiplies the other sizes all the same.
    if prod(max(size, 1) for size in outer) * max(row_bytes(dtype, inner), 1) >= 2**63:
        raise ValueError(f"has the impossible shape {shown(str(shape))}")
    return TensorInfo(dtype, shape, begin, begin + prod(outer) * row_bytes(dtype, inner))


def _check_places(tensors: Mapping[str, TensorInfo], data_bytes: int, subject: str) -> None:
    """Whether no two tensors overlap, and all lie within the file. Gaps between them are allowed."""
    position, before = 0, "the start"
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin < position:
            raise ModelError(subject, f"tensor {shown(name)} overlaps {before}", DOWNLOAD_AGAIN)
        position, before = info.end, shown(name)
    if position > max(data_bytes, 0):
        reason = f"{max(data_bytes, 0)} bytes of data where its header describes {shown(position)}"
        raise ModelError(subject, f"is cut short: {reason}", DOWNLOAD_AGAIN)
