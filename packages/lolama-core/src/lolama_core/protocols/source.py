"""Where models come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.types import DownloadPlan, ModelFiles, ModelInfo


@runtime_checkable
class ModelSource(Protocol):
    """Names → files. Found through the entry point ``lolama.sources``."""

    def list(self) -> Sequence[ModelInfo]:
        """The aliases it knows."""
        ...

    def resolve(self, name: str, io: CheckpointIO) -> ModelFiles:
        """Files of a local folder, an alias or ``owner/name[@revision]`` that is here already.

        Raises:
            UsageError: if the name means nothing here, with the closest alias.
            ModelError: if the files cannot be used, naming the file or tensor.
            NetworkError: if it is a model that would have to be fetched first.
        """
        ...

    def plan(self, name: str) -> DownloadPlan:
        """What `fetch` would transfer, to the byte."""
        ...

    def fetch(
        self,
        plan: DownloadPlan,
        *,
        confirm: Callable[[DownloadPlan], bool],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Transfer what is missing after ``confirm`` agrees; ``progress(file, bytes done, bytes in all)``."""
        ...

    def remove(self, name: str) -> int:
        """Delete a fetched model; bytes freed."""
        ...
