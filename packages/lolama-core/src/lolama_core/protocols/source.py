"""Where models come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.types import DownloadPlan, ModelFiles, ModelInfo, StoredModel


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

    def plan(self, name: str, io: CheckpointIO) -> DownloadPlan:
        """What `fetch` would transfer, to the byte. Its configuration is read already.

        Raises:
            UsageError: if the name means nothing here, or is a local folder.
            NetworkError: if the source cannot be reached, or what answers is not one.
            AuthorisationError: if the model is missing, private or gated for this user.
            ModelError: if the repository holds nothing that lolama could load, or a configuration that it
                cannot use.
        """
        ...

    def fetch(
        self,
        plan: DownloadPlan,
        io: CheckpointIO,
        *,
        confirm: Callable[[DownloadPlan], bool],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Transfer what is missing, if ``confirm`` agrees; it is not asked where nothing is missing.

        Whatever is small comes first, and is checked before the weights come.

        Args:
            plan: The result of `plan`.
            io: Reader of untrusted files.
            confirm: Whether to go ahead.
            progress: Called as ``progress(file, bytes done, bytes in all)``, first for every file, then as
                they grow; what it raises ends the transfer.

        Returns:
            The directory that holds the model.

        Raises:
            UsageError: if ``confirm`` does not agree.
            NetworkError: if a file did not come, or came damaged.
            ModelError: if the model cannot be used, as far as the files beside the weights tell.
            AuthorisationError: as for `plan`.
            ResourceError: if there is no room for it.
        """
        ...

    def stored(self, io: CheckpointIO) -> Sequence[StoredModel]:
        """What has been fetched, wholly or in part, and what other programs' caches hold; last used first."""
        ...

    def remove(self, name: str) -> int:
        """Delete a fetched model and what was made of it; bytes freed.

        Raises:
            UsageError: if there is no such model here, or it is a folder of the user's own.
        """
        ...

    def collect_garbage(self) -> int:
        """Delete what nothing will use: interrupted downloads, replaced commits; bytes freed."""
        ...
