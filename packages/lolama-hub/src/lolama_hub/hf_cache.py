"""Models that are here already because another program fetched them: Hugging Face's own cache, read only.

::

    models--owner--name/refs/main                a commit
    models--owner--name/snapshots/<commit>/…     links into blobs
    models--owner--name/blobs/<hash>             sha256 of a large file, git's hash of a small one
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import constants, get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import FilePlan
from lolama_hub.hub_api import RemoteFile
from lolama_hub.selection import TOKENIZERS, needed_files
from lolama_hub.snapshots import DEFAULT_REF

_COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEX = ".index.json"


def find_snapshot(repo: str, revision: str) -> tuple[Path, str] | None:
    """The folder and commit of a model, if all that lolama needs of it is in the cache."""
    root = _root(repo)
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (root / "refs" / (revision or DEFAULT_REF)).read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
    folder = root / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    return (folder, commit) if _is_whole(repo, commit, folder) else None


def find_blob(repo: str, file: FilePlan) -> Path | None:
    """A cached file that bears the hash of ``file`` as its name, and has its size."""
    path = _root(repo) / "blobs" / file.digest.partition(":")[2]
    try:
        return path if path.is_file() and path.stat().st_size == file.size else None
    except OSError:
        return None


def _root(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repo.replace('/', '--')}"


def _is_whole(repo: str, commit: str, folder: Path) -> bool:
    """Whether no file is missing: by the cache's own list of the commit, else by what is there."""
    here = {path.name for path in folder.iterdir() if path.is_file()}
    try:
        listed = [file.path for file in get_cached_repo_tree(repo, revision=commit)]
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        listed = list(here)
    try:
        needed = {file.path for file in needed_files(repo, [RemoteFile(n, 0, "") for n in listed])}
        for index in (name for name in needed & here if name.endswith(_INDEX)):
            needed |= set(json.loads((folder / index).read_text("utf-8"))["weight_map"].values())
    except (ModelError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return needed <= here and any(name in here for name in TOKENIZERS)
