"""core's file code as one object, to hand to packages that may not import it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from lolama_core.checkpoint_writer import write_checkpoint
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.types import JSON, CanonicalConfig
from lolama_core.safetensors_file import SafetensorsFile, TensorInfo
from lolama_core.untrusted_files import read_json, read_text


class _FileIO:
    """See `protocols.CheckpointIO`, which this implements with the functions of this package."""

    def header(self, path: Path) -> Mapping[str, TensorInfo]:
        return SafetensorsFile(path).header()

    def read_json(self, path: Path) -> dict[str, JSON]:
        return read_json(path)

    def read_text(self, path: Path) -> str:
        return read_text(path)

    def write(
        self,
        directory: Path,
        config: CanonicalConfig,
        tensors: Iterable[tuple[str, Tensor]],
        *,
        tokenizer_json: str,
        chat_template: str | None = None,
    ) -> None:
        write_checkpoint(
            directory, config, tensors, tokenizer_json=tokenizer_json, chat_template=chat_template
        )


checkpoint_io: CheckpointIO = _FileIO()
