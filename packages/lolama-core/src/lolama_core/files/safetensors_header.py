"""The header of a safetensors file, checked before it is believed. Nothing here needs torch.

A file is eight bytes that say how long the header is (little-endian), the header (JSON), and the data.
The header gives each tensor's dtype, shape and place in the data; the places must cover the data exactly.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

from lolama_core.files.parallel_read import read_into
from lolama_core.files.untrusted import (
    DOWNLOAD_AGAIN,
    impostor,
    open_regular,
    parse_json_object,
    text_of,
)
from lolama_core.protocols.checks import is_integer, shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 16
LENGTH_BYTES = 8
METADATA_KEY = "__metadata__"

ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
        **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
        **dict.fromkeys(("I32", "U32", "F32"), 4),
        **dict.fromkeys(("I64", "U64", "F64"), 8),
    }
)
"""What the format calls a dtype → bytes of one value."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file. ``begin`` and ``end`` are bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """What the header of one file says.

    Attributes:
        path: The file.
        tensors: Tensor name → dtype, shape and place.
        metadata: The free-form block.
        data_start: Bytes from the start of the file to that of the data.
        status: The status of the file whose header this is, at that time.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    status: os.stat_result


def read_header(path: Path) -> SafetensorsHeader:
    """The checked header of a file; no weight is read.

    Raises:
        ModelError: if it is anything but a whole, well-formed safetensors file; the message says what
            was found.

    Example:
        >>> read_header(Path("model.safetensors")).tensors["norm.weight"].shape
        (4096,)
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        raw = _read_header(file, status.st_size, str(path))
    data_start = LENGTH_BYTES + len(raw)
    parsed = parse_json_object(text_of(raw, str(path)), str(path))
    metadata = _metadata(parsed.pop(METADATA_KEY, {}), str(path))
    tensors = _tensors(parsed, status.st_size - data_start, str(path))
    return SafetensorsHeader(path, MappingProxyType(tensors), metadata, data_start, status)


def is_same_content(before: os.stat_result, now: os.stat_result) -> bool:
    """Whether a file is still what it was.

    Size and time of modification are what a program sets as it likes. The time of change nobody can set, but
    a second name for the file changes it too, and a download gives files a second name. The number of the
    inode does not count: some file systems over a network invent it anew.
    """
    linked = before.st_nlink != now.st_nlink
    return (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns) and (
        linked or before.st_ctime_ns == now.st_ctime_ns
    )


def _read_header(file: io.FileIO, size: int, subject: str) -> bytes:
    """The raw header. Only a file that cannot be safetensors is compared with what else it might be."""
    head = bytearray(min(size, 512))
    read_into(file, 0, memoryview(head), subject)
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    fits = size > LENGTH_BYTES and 0 < length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES)
    if not fits or head[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        found = impostor(bytes(head))
        if found:
            raise ModelError(subject, *found)
        raise ModelError(subject, _what_is_wrong(size, length), DOWNLOAD_AGAIN)
    raw = bytearray(length)
    read_into(file, LENGTH_BYTES, memoryview(raw), subject)
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
            reason = f"tensor {shown(name)} {error}"
            raise ModelError(subject, reason, DOWNLOAD_AGAIN) from None
    position, before = 0, "the start"
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            what = "overlaps" if info.begin < position else "leaves a gap after"
            raise ModelError(subject, f"tensor {shown(name)} {what} {before}", DOWNLOAD_AGAIN)
        position, before = info.end, shown(name)
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
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"has the dtype {shown(str(dtype))}, which is not known here")
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
    if prod(max(size, 1) for size in shape) * ITEM_BYTES[dtype] >= 2**63:
        raise ValueError(f"has the impossible shape {shown(str(shape))}")
    needed = prod(shape) * ITEM_BYTES[dtype]
    if end - begin != needed:
        what = f"{dtype} of shape {shown(str(shape))}"
        raise ValueError(f"has {end - begin} bytes, but {what} needs {needed}")
    return TensorInfo(dtype, shape, begin, end)


def _whole_numbers(value: JSON, field: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"has a {field} that is not a list")
    for number in value:
        if not is_integer(number, 0, 2**63 - 1):
            raise ValueError(f"has {shown(str(number))} in its {field}")
    return tuple(number for number in value if isinstance(number, int))
