"""Writing a safetensors file tensor by tensor, without knowing beforehand what will come."""

from __future__ import annotations

import io
import json

from torch import Tensor

from lolama_core.files.safetensors_header import LENGTH_BYTES, METADATA_KEY
from lolama_core.files.tensor_file import DTYPE_NAMES, byte_view
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.whole_file import write_all

# The header comes first in the file but is known last, so room is left for it and filled with spaces, as
# the format allows. This is enough for about 500 tensors; for more, the data are moved up once at the end.
ROOM_BYTES = 64 * 2**10 - LENGTH_BYTES
# Every tensor begins at a multiple of this in the file, and so in memory where it is mapped. Processors read
# 64 bytes at a time, and some of torch's products end the process if a tensor begins in the middle of them.
ALIGNMENT = 64
_MOVE_BYTES = 16 * 2**20


class SafetensorsWriter:
    """Appends tensors to an empty file; `finish` makes it a safetensors file.

    Args:
        file: An empty file, unbuffered, open for reading and writing.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._data_start = LENGTH_BYTES + ROOM_BYTES
        self._position = 0
        self._entries: dict[str, object] = {METADATA_KEY: {"format": "pt"}}
        self._uneven: list[tuple[str, Tensor]] = []
        file.seek(self._data_start)

    def add(self, name: str, tensor: Tensor) -> None:
        """Append one tensor. Any device and any strides will do.

        Raises:
            UsageError: if the name was given before, or safetensors has no such dtype.
            OSError: if it cannot be written.
        """
        if name in self._entries:
            raise UsageError(shown(name), "is given twice or is reserved", "give each tensor once")
        if tensor.dtype not in DTYPE_NAMES:
            raise UsageError(
                shown(name), f"safetensors cannot hold {tensor.dtype}", "convert it first"
            )
        size = tensor.numel() * tensor.element_size()
        self._entries[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape)}
        if size % ALIGNMENT:
            # Kept for the end, or the tensors after it would lie where many readers cannot map them.
            self._uneven.append((name, tensor))
        else:
            self._append(name, tensor)

    def finish(self) -> None:
        """Write what was kept back, and the header."""
        for name, tensor in sorted(self._uneven, key=lambda item: -item[1].element_size()):
            self._append(name, tensor)
        header = json.dumps(self._entries, separators=(",", ":")).encode("utf-8")
        length = max(ROOM_BYTES, len(header) + -(LENGTH_BYTES + len(header)) % ALIGNMENT)
        self._move_data(LENGTH_BYTES + length)
        self._file.seek(0)
        write_all(
            self._file, memoryview(length.to_bytes(LENGTH_BYTES, "little") + header.ljust(length))
        )

    def _append(self, name: str, tensor: Tensor) -> None:
        # A tensor may be the negative of what its memory holds, noted in a bit beside it.
        plain = tensor.detach().cpu().contiguous().resolve_neg()
        data = byte_view(plain)
        write_all(self._file, data)
        end = self._position + len(data)
        entry = self._entries[name]
        assert isinstance(entry, dict)
        entry["data_offsets"] = [self._position, end]
        self._position = end

    def _move_data(self, start: int) -> None:
        """Move the data up, from its end so that nothing is overwritten before it is read."""
        end = self._data_start + self._position
        while start > self._data_start and end > self._data_start:
            begin = max(self._data_start, end - _MOVE_BYTES)
            self._file.seek(begin)
            piece = bytearray(end - begin)
            read = memoryview(piece)
            while read:
                read = read[self._file.readinto(read) :]
            self._file.seek(begin + start - self._data_start)
            write_all(self._file, memoryview(piece))
            end = begin
