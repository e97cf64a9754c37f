"""The fetched models of the store: one directory a commit, there whole or not at all.

::

    models/owner--name/<commit>/            the files, and a manifest that lists them
    models/owner--name/<commit>.partial/    a download that goes on, or was interrupted
    models/owner--name/refs.json            which commit main, or a tag, was when it was fetched
    models/owner--name--Q4_K_M/…            the same of one of several models that a repository has in GGUF
    locks/owner--name                       held while any of that changes; otherwise absent

A download becomes visible by one rename, after everything in it was verified and forced to the disk. Nothing
in a snapshot changes afterwards, so its files may be mapped into memory: removing one leaves the maps of a
process that uses it intact, since nothing is ever cut short.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.source import DownloadPlan, FilePlan, StoredModel
from lolama_core.protocols.whole_file import write_whole
from lolama_hub.store.locks import locked
from lolama_hub.store.place import (
    PARTIAL,
    STAGING,
    Store,
    folder_name,
    repo_name,
    unusable,
)

MANIFEST = "lolama.json"
_REFS = "refs.json"
DEFAULT_REF = "main"
_VERSION = 1
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What is kept about a snapshot elsewhere in the store, under names that begin with its commit.
_DERIVED = ("converted", "tokenizers", "finite")


class Snapshots:
    """The models that a store holds.

    Args:
        store: The store; nothing is made in it before something is fetched.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root / "models"

    def labels(self, repo: str) -> list[str]:
        """Names such as ``owner/name:Q4_K_M`` of models in GGUF, of which there is something here."""
        names = (repo_name(folder.name) for folder in _children(self._root))
        return [name for name in names if name.startswith(f"{repo}:")]

    def lock(self, repo: str) -> AbstractContextManager[None]:
        """Hold off every other process that would change what there is of ``repo``."""
        return locked(self._store.directory("locks") / folder_name(repo))

    def commit_of(self, repo: str, revision: str) -> str:
        """The commit that a revision was when it was fetched; empty if it never was."""
        if _COMMIT.fullmatch(revision):
            return revision
        return self._refs(repo).get(revision or DEFAULT_REF, "")

    def find(self, repo: str, commit: str) -> Path | None:
        """The directory of a whole snapshot, or None.

        Raises:
            ModelError: if somebody has changed or removed a file of it.
        """
        directory = self._root / folder_name(repo) / commit
        if not commit or not os.path.isdir(directory):
            return None
        for name, size, _ in self.files(directory):
            try:
                found = (directory / name).stat().st_size
            except OSError:
                found = -1
            if found != size:
                reason = f"{name} was changed or removed since it was fetched"
                raise ModelError(
                    str(directory), reason, f"run `lolama rm {repo}`, then `lolama pull {repo}`"
                )
        return directory

    def files(self, directory: Path) -> list[tuple[str, int, str]]:
        """Name, size and digest of the files of a snapshot, from its manifest."""
        try:
            manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
            return [
                (str(file["name"]), int(file["size"]), str(file["digest"]))
                for file in manifest["files"]
            ]
        except (OSError, ValueError, KeyError, TypeError):
            reason = "has no manifest, so it cannot be told whether it is whole"
            raise ModelError(
                str(directory), reason, "remove it and fetch the model again"
            ) from None

    def staging(self, repo: str, commit: str) -> Path:
        """Where a download goes on until it is whole. It may not exist."""
        return self._root / folder_name(repo) / (commit + STAGING)

    def begin(self, plan: DownloadPlan) -> Path:
        """The staging directory of a plan, with the list of its files. Only while `lock` is held."""
        staging = self.staging(plan.repo, plan.revision)
        staging.mkdir(parents=True, exist_ok=True)
        manifest = {
            "version": _VERSION,
            "repo": plan.repo,
            "revision": plan.revision,
            "files": [
                {"name": file.name, "size": file.size, "digest": file.digest} for file in plan.files
            ],
        }
        _write(staging / MANIFEST, manifest)
        return staging

    def discard(self, plan: DownloadPlan) -> None:
        """Forget a download that turned out to be in vain. Only while `lock` is held."""
        staging = self.staging(plan.repo, plan.revision)
        _delete(staging)
        with suppress(OSError):  # there is more of this repository
            staging.parent.rmdir()

    def publish(self, plan: DownloadPlan) -> Path:
        """Make a staged download visible, once every file in it is verified. Only while `lock` is held."""
        staging = self.staging(plan.repo, plan.revision)
        wanted = {MANIFEST, *(file.name for file in plan.files)}
        for path in _children(staging):
            if path.name not in wanted:
                _delete(path)
        _sync(staging)
        directory = self._root / folder_name(plan.repo) / plan.revision
        os.rename(staging, directory)
        self.touch(directory)
        _sync(directory.parent)
        return directory

    def missing_files(self, repo: str) -> str:
        """What an interrupted download of ``repo`` lacks, for a message; empty if there is none."""
        for directory in self._directories(repo):
            if directory.name.endswith(STAGING) and (directory / MANIFEST).exists():
                names = [n for n, _, _ in self.files(directory) if not (directory / n).exists()]
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                return ", ".join(names[:3]) + more + (" is" if len(names) == 1 else " are")
        return ""

    def remember(self, repo: str, ref: str, commit: str) -> None:
        """Note what a branch or tag is now. Only while `lock` is held."""
        refs = self._refs(repo)
        if refs.get(ref) != commit:
            _write(self._root / folder_name(repo) / _REFS, {**refs, ref: commit})

    def touch(self, directory: Path) -> None:
        """Note that a model is used now; in a store that is read-only, nothing is noted."""
        with suppress(OSError):
            os.utime(directory / MANIFEST)

    def same_content(self, repo: str, file: FilePlan) -> Path | None:
        """A file of an earlier commit that has the content ``file`` is to have."""
        for directory in self._directories(repo):
            if _COMMIT.fullmatch(directory.name):
                for name, size, digest in self.files(directory):
                    if (size, digest) == (file.size, file.digest):
                        return directory / name
        return None

    def models(self) -> list[StoredModel]:
        """What is here, whole and in part, the last used first."""
        found = []
        for folder in _children(self._root):
            repo = repo_name(folder.name)
            refs = self._refs(repo)
            for directory in _children(folder):
                commit = directory.name.removesuffix(STAGING)
                if not _COMMIT.fullmatch(commit) or not directory.is_dir():
                    continue
                complete = commit == directory.name
                with suppress(FileNotFoundError):  # removed, or published, while we look
                    marker = directory / MANIFEST if complete else directory
                    used = marker.stat().st_mtime
                    size = _size(directory)
                    names = tuple(sorted(ref for ref, at in refs.items() if at == commit))
                    found.append(
                        StoredModel(
                            repo=repo,
                            revision=commit,
                            refs=names if complete else (),
                            size=size,
                            last_used=used,
                            complete=complete,
                        )
                    )
        return sorted(found, key=lambda model: -model.last_used)

    def remove(self, repo: str, commit: str = "") -> int:
        """Delete a commit of a model, or all there is of it; bytes freed. Only while `lock` is held."""
        freed = 0
        for directory in self._directories(repo):
            if not commit or directory.name.removesuffix(STAGING) == commit:
                freed += _delete(directory)
                for kind in _DERIVED:
                    for made in _children(self._store.root / kind):
                        if made.name.startswith(f"{directory.name}-"):
                            freed += _delete(made)
        folder = self._root / folder_name(repo)
        refs = {ref: at for ref, at in self._refs(repo).items() if (folder / at).is_dir()}
        if refs:
            _write(folder / _REFS, refs)
        else:
            freed += _delete(folder)
        return freed

    def collect_garbage(self) -> int:
        """Delete interrupted downloads, commits that no ref means, and what was derived of no snapshot."""
        freed = 0
        for folder in _children(self._root):
            repo = repo_name(folder.name)
            with self.lock(repo):
                current = {_REFS, *self._refs(repo).values()}
                for path in _children(folder):
                    if path.name not in current:
                        freed += _delete(path)
                if not self._directories(repo):
                    freed += _delete(folder)
        here = {path.name for folder in _children(self._root) for path in _children(folder)}
        for kind in _DERIVED:
            for made in _children(self._store.root / kind):
                commit = made.name.partition("-")[0]
                if _COMMIT.fullmatch(commit) and commit not in here:
                    freed += _delete(made)
        return freed

    def partial_sizes(self, repo: str, commit: str) -> dict[str, int]:
        """Name → bytes of what an interrupted download has left."""
        sizes = {}
        for path in _children(self.staging(repo, commit)):
            with suppress(FileNotFoundError):
                sizes[path.name.removesuffix(PARTIAL)] = path.stat().st_size
        return sizes

    def _directories(self, repo: str) -> list[Path]:
        found = _children(self._root / folder_name(repo))
        return [path for path in found if _COMMIT.fullmatch(path.name.removesuffix(STAGING))]

    def _refs(self, repo: str) -> dict[str, str]:
        try:
            text = (self._root / folder_name(repo) / _REFS).read_text("utf-8")
            refs = json.loads(text)
            return {str(ref): str(at) for ref, at in refs.items() if _COMMIT.fullmatch(str(at))}
        except (OSError, ValueError, AttributeError):
            return {}


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unusable(folder, error) from None


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size(child) for child in _children(path))
    return path.lstat().st_size


def _delete(path: Path) -> int:
    """Bytes freed. Renamed first, so that nothing half deleted bears a name that means something."""
    size = _size(path)
    if path.is_dir():
        doomed = path.with_name(f"{path.name}.removed-{os.getpid()}")
        os.rename(path, doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink()
    return size


def _write(path: Path, values: object) -> None:
    write_whole(path, json.dumps(values, indent=1).encode())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
