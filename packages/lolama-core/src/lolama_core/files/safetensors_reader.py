"""The tensors of a safetensors file; `safetensors_header` says what such a file is.

The reader stands here, and not the ``safetensors`` package, because that one maps every file into memory
(one cut short afterwards then kills the process), allows headers of 100 MB, and leaves a caller to guess
what was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lolama_core.files.safetensors_header import SafetensorsHeader, read_header
from lolama_core.files.tensor_file import TensorFile


class SafetensorsFile(TensorFile):
    """A checked safetensors file; see `TensorFile`.

    Args:
        source: The file, or its header if that has been read.

    Raises:
        ModelError: if the file is anything but a whole, well-formed safetensors file; the message says what
            was found.

    Example:
        >>> file = SafetensorsFile(Path("model.safetensors"))
        >>> file.header()["norm.weight"].shape
        (4096,)
        >>> weight = file.read("norm.weight")
    """

    def __init__(self, source: Path | SafetensorsHeader) -> None:
        header = read_header(source) if isinstance(source, Path) else source
        super().__init__(header)
        self.metadata: Mapping[str, str] = header.metadata
