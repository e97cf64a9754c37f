"""core's file code as one object, to hand to packages that may not import it.

What needs torch is imported when it is used: a name that means nothing, or a configuration that cannot be
used, is refused before torch is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.files.gguf_header import (
    GGUFHeader,
    is_gguf,
    read_gguf_header,
    read_gguf_tensors,
)
from lolama_core.files.gguf_parts import read_gguf_parts
from lolama_core.files.safetensors_header import read_header
from lolama_core.files.untrusted import parse_json, read_json, read_text
from lolama_core.protocols.types import JSON, CanonicalConfig

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_core.files.safetensors_header import TensorInfo


class FileCheckpointIO:
    """`protocols.CheckpointIO` by the functions of this package; it has no state."""

    def header(self, path: Path) -> Mapping[str, TensorInfo]:
        """See `safetensors_header.read_header` and `gguf_header.read_gguf_tensors`."""
        return (read_gguf_tensors(path) if is_gguf(path) else read_header(path)).tensors

    def gguf(self, path: Path) -> GGUFHeader:
        """See `gguf_header.read_gguf_header`."""
        return read_gguf_header(path)

    def gguf_parts(self, path: Path) -> tuple[GGUFHeader, ...]:
        """See `gguf_parts.read_gguf_parts`."""
        return read_gguf_parts(path)

    def read_json(self, path: Path) -> dict[str, JSON]:
        """See `untrusted_files.read_json`."""
        return read_json(path)

    def parse_json(self, content: bytes, subject: str) -> dict[str, JSON]:
        """See `untrusted_files.parse_json`."""
        return parse_json(content, subject)

    def read_text(self, path: Path) -> str:
        """See `untrusted_files.read_text`."""
        return read_text(path)

    def write(
        self,
        directory: Path,
        config: CanonicalConfig,
        tensors: Iterable[tuple[str, Tensor]],
        *,
        tokenizer_json: str | None,
        chat_template: str | None = None,
    ) -> None:
        """See `write_checkpoint`."""
        from lolama_core.files.checkpoint_writer import write_checkpoint

        write_checkpoint(
            directory, config, tensors, tokenizer_json=tokenizer_json, chat_template=chat_template
        )
