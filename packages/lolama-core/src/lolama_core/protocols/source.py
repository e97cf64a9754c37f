"""Where models come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.types import ModelFiles


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One line of ``lolama models``: an alias and what it stands for.

    ``repo`` may end in ``@revision``. ``size`` is about what a download takes, in bytes; 0 if unknown or
    built in. ``context`` is the number of positions that the model attends over; 0 if unknown.
    """

    alias: str
    repo: str
    parameters: str
    description: str
    kind: str
    license: str
    gated: bool = False
    size: int = 0
    context: int = 0


@dataclass(frozen=True, kw_only=True)
class FilePlan:
    """One file of a planned download.

    Attributes:
        name: The name of the file in the repository.
        size: Its size in bytes.
        present: If it need not be fetched.
        partial: Bytes of it that an interrupted download has left.
        digest: What the source says about the content: ``sha256:`` or ``git-sha1:`` and hexadecimal digits.
        content: The file itself, if the source has read it to see whether the model can be used.
    """

    name: str
    size: int
    present: bool
    partial: int = 0
    digest: str = ""
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """What fetching a model would transfer.

    Attributes:
        repo: Such as ``owner/name``.
        revision: The commit, 40 hexadecimal digits.
        files: The files in the order in which they are fetched.
        ref: The revision that was asked for, such as ``main``.
    """

    repo: str
    revision: str
    files: tuple[FilePlan, ...]
    ref: str = ""

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that are not here yet."""
        return sum(file.size - file.partial for file in self.files if not file.present)


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model in the store.

    Attributes:
        repo: Such as ``owner/name``.
        revision: The commit.
        refs: Names it was asked for by, such as ``main``; none if a newer commit took them over.
        size: Bytes on the disk.
        last_used: Seconds since 1970; of an incomplete one, when it last grew.
        complete: False for what an interrupted download has left. It is never used.
        shared: True if it lies in another program's cache, which is read and never changed.
    """

    repo: str
    revision: str
    refs: tuple[str, ...]
    size: int
    last_used: float
    complete: bool
    shared: bool = False


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
