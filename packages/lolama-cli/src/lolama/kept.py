"""Quantized models that ``--quantize`` made and keeps: what there is, and deleting it.

Each says in its config.json what it was made from: a built-in model, a repository, or a folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import lolama_core
from lolama import names
from lolama.files import expanded, read_json
from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_hub import Store

KIND = "int8"
"""The store's sub-directory of them, of four bits too."""

_DOOMED = ".removed-"


@dataclass(frozen=True)
class Kept:
    """A quantized model in the store.

    Attributes:
        directory: Where.
        source: What it was made from: a built-in model's name, a repository's id, or the path of a folder.
            The directory itself if it does not say.
        revision: The commit of a repository, else empty.
        bytes: Size on the disk.
    """

    directory: Path
    source: str
    revision: str
    bytes: int


def source_of(files: ModelFiles) -> str:
    """What a model is called that quantized models are made from: see `Kept.source`."""
    if files.repo or files.name in names.builtin_models():
        return files.repo or files.name
    return path_of(files.name)


def opened(files: ModelFiles, place: Path) -> ModelFiles:
    """What is kept of a model in a place, under the model's name.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        return replace(lolama_core.open_checkpoint(place, immutable=True), name=files.name)
    except ModelError as error:
        remedy = "delete its folder, and it is made anew"
        raise ModelError(error.subject, error.reason, remedy) from None


def discard_damaged(place: Path) -> None:
    """Delete what is kept in a place, if it is no checkpoint: the writer replaces no such thing.

    Raises:
        ResourceError: if it cannot be deleted.
    """
    try:
        lolama_core.open_checkpoint(place)
    except ModelError:
        _discard(place)


def kept_models() -> list[Kept]:
    """Every quantized model that is kept."""
    found = []
    for directory in _directories():
        with suppress(ModelError, FileNotFoundError):  # being written, or deleted, or not ours
            block = read_json(directory / "config.json").get("source")
            source: dict[str, JSON] = block if isinstance(block, dict) else {}
            size = sum(file.stat().st_size for file in directory.iterdir())
            name = source.get("name") or source.get("repo") or directory
            found.append(Kept(directory, str(name), str(source.get("revision") or ""), size))
    return found


def remove(is_meant: Callable[[Kept], bool]) -> int:
    """Delete those that are meant; bytes freed."""
    return sum(_delete(one) for one in kept_models() if is_meant(one))


def path_of(name: str) -> str:
    """What quantized models of a folder have as their source."""
    return os.path.abspath(expanded(name))


def collect_garbage(is_stored: Callable[[str, str], bool]) -> int:
    """Delete quantized models whose source is gone, and leftovers; bytes freed.

    Args:
        is_stored: Whether a repository is here in a revision.
    """
    freed = remove(lambda one: _is_orphan(one, is_stored))
    for directory in _directories(_DOOMED):
        shutil.rmtree(directory, ignore_errors=True)
    return freed


def _is_orphan(kept: Kept, is_stored: Callable[[str, str], bool]) -> bool:
    if kept.source == str(kept.directory) or kept.source in names.builtin_models():
        return False
    if os.path.isabs(kept.source):
        return not os.path.exists(kept.source)
    return not is_stored(kept.source, kept.revision)


def _directories(mark: str = "") -> Iterator[Path]:
    """Directories of the store with ``mark`` in their names, or without the mark of what is deleted."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted((Store().root / KIND).iterdir()):
            whole = not path.name.startswith(".") and _DOOMED not in path.name
            if path.is_dir() and (mark in path.name if mark else whole):
                yield path


def _delete(kept: Kept) -> int:
    return kept.bytes if _discard(kept.directory) else 0


def _discard(directory: Path) -> bool:
    """Whether this process deleted it. It is renamed first: nothing half deleted has a name of meaning."""
    doomed = directory.with_name(f"{directory.name}{_DOOMED}{os.getpid()}")
    try:
        os.rename(directory, doomed)
        shutil.rmtree(doomed)
    except FileNotFoundError:  # there is none, or another process was faster
        return False
    except OSError as error:
        reason = f"cannot be deleted: {error.strerror}"
        raise ResourceError(str(directory), reason, "remove it yourself") from None
    return True
