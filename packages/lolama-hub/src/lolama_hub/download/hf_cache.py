"""Models that are here already because another program fetched them: Hugging Face's own cache, read only.

::

    models--owner--name/refs/main                a commit
    models--owner--name/snapshots/<commit>/…     links into blobs
    models--owner--name/blobs/<hash>             sha256 of a large file, git's hash of a small one
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.source import FilePlan, StoredModel
from lolama_hub.download.api import RemoteFile
from lolama_hub.download.gguf_choice import choices, is_called
from lolama_hub.download.hugging_face import (
    CachedRepoTreeNotFoundError,
    constants,
    get_cached_repo_tree,
)
from lolama_hub.download.selection import TOKENIZERS, needed_files
from lolama_hub.folder.files import index_shards
from lolama_hub.store.snapshots import DEFAULT_REF

_COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEX = ".index.json"


def find_snapshot(repo: str, revision: str, io: CheckpointIO) -> tuple[Path, str] | None:
    """The folder and commit of a model, if all that lolama needs of it is in the cache."""
    found = _snapshot(repo, revision, io)
    return found if found is not None and _is_whole(repo, found[1], found[0], io) else None


def find_gguf_file(
    repo: str, label: str, revision: str, io: CheckpointIO
) -> tuple[Path, str, str] | None:
    """The file, label and commit of a model in GGUF in the cache; without a label, of the only one."""
    found = _snapshot(repo, revision, io)
    if found is None:
        return None
    folder, commit = found
    here = choices([RemoteFile(path.name, 0, "") for path in folder.iterdir() if path.is_file()])
    fitting = [one for one in here if not label or is_called(one, label)]
    if len(fitting) != 1:
        return None
    return folder / here[fitting[0]][0].path, fitting[0], commit


def _snapshot(repo: str, revision: str, io: CheckpointIO) -> tuple[Path, str] | None:
    """The folder and commit of what there is of a model."""
    root = _root(repo)
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = io.read_text(root / "refs" / (revision or DEFAULT_REF)).strip()
        except ModelError:
            return None
    folder = root / "snapshots" / commit
    return (folder, commit) if _COMMIT.fullmatch(commit) and os.path.isdir(folder) else None


def whole_models(io: CheckpointIO) -> Iterator[tuple[StoredModel, Path]]:
    """Models that have a branch or tag in the cache and of which no file is missing, and their folders."""
    for root in _children(_cache()):
        kind, _, name = root.name.partition("--")
        repo = name.replace("--", "/", 1)
        if kind != "models" or "/" not in repo:
            continue
        commits: dict[str, list[str]] = {}
        for ref in _children(root / "refs"):
            found = find_snapshot(repo, ref.name, io)
            if found is not None:
                commits.setdefault(found[1], []).append(ref.name)
        for commit, refs in commits.items():
            folder = root / "snapshots" / commit
            try:
                files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            except OSError:  # removed while we look
                continue
            model = StoredModel(
                repo=repo,
                revision=commit,
                refs=tuple(refs),
                size=sum(file.st_size for file in files),
                last_used=max((file.st_atime for file in files), default=0.0),
                complete=True,
                shared=True,
            )
            yield model, folder


def holds(repo: str) -> bool:
    """Whether there is anything of a model."""
    return os.path.isdir(_root(repo))


def find_blob(repo: str, file: FilePlan) -> Path | None:
    """A cached file that bears the hash of ``file`` as its name, and has its size."""
    path = _root(repo) / "blobs" / file.digest.partition(":")[2]
    try:
        return path if path.is_file() and path.stat().st_size == file.size else None
    except OSError:
        return None


def _root(repo: str) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}"


def _cache() -> Path:
    return Path(os.path.expanduser(constants.HF_HUB_CACHE))


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_whole(repo: str, commit: str, folder: Path, io: CheckpointIO) -> bool:
    """Whether no file is missing: by the cache's own list of the commit, else by what is there."""
    here = {path.name for path in folder.iterdir() if path.is_file()}
    try:
        listed = [file.path for file in get_cached_repo_tree(repo, revision=commit)]
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        listed = list(here)
    try:
        needed = {file.path for file in needed_files(repo, [RemoteFile(n, 0, "") for n in listed])}
        for index in (name for name in needed & here if name.endswith(_INDEX)):
            needed |= set(index_shards(folder / index, io.read_json(folder / index)).values())
    except ModelError:
        return False
    return needed <= here and any(name in here for name in TOKENIZERS)
