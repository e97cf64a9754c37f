"""Names → files: the Hugging Face side of lolama."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError, NetworkError, UsageError
from lolama_core.protocols.source import DownloadPlan, ModelInfo, StoredModel
from lolama_core.protocols.types import ModelFiles
from lolama_hub import registry
from lolama_hub.folder.fields import shown
from lolama_hub.folder.files import Folder
from lolama_hub.folder.other_formats import describe_file, names_in
from lolama_hub.folder.resolve import check_config, check_small_files, resolve_folder
from lolama_hub.gguf.resolve_gguf import find_gguf, is_gguf, is_gguf_name, resolve_gguf
from lolama_hub.store.place import Store
from lolama_hub.store.snapshots import Snapshots

_PATH_STARTS = ("/", "./", "../", "~", "\\", ".\\", "..\\")
_CHECK_PATH = "check its path"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class HubModel:
    """A model by its Hugging Face id.

    Attributes:
        repo: ``owner/name``.
        revision: Empty for the newest.
        label: Which model, of a repository that has several in GGUF; empty if it is not said.
    """

    repo: str
    revision: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """All of it but the revision."""
        return f"{self.repo}:{self.label}" if self.label else self.repo


def parse_name(name: str) -> Path | HubModel:
    """What a name means: a local folder, a file in GGUF, or a model of the Hub.

    In this order: whatever looks like a path (``./x``, ``/x``, ``~/x``) is one; then an alias, even if a
    folder beside you has the same name (``./tinyllama`` means the folder); then an existing folder or file;
    then ``owner/name[:label][@revision]``.

    Raises:
        UsageError: if it is none of these, with the closest alias.
    """
    if name in (".", "..") or name.startswith(_PATH_STARTS) or _DRIVE.match(name):
        return _existing(name)
    info = registry.find(name)
    if info is not None:
        match = registry.HUB_ID.fullmatch(info.repo)
        assert match is not None
        return HubModel(match[1], match[3] or "", match[2] or "")
    if name and os.path.exists(name):
        return _existing(name)
    if is_gguf_name(name) and ":" not in name:
        raise UsageError(f"model {shown(name)}", "there is no such file", _CHECK_PATH)
    match = registry.HUB_ID.fullmatch(name)
    if match and ".." not in name and "--" not in match[1]:
        return HubModel(match[1], match[3] or "", match[2] or "")
    other = describe_file(name)
    if other is not None:
        raise UsageError(f"model {shown(name)}", *other)
    reason = "is neither an alias, a folder, nor an id of the form owner/name"
    raise UsageError(f"model {shown(name)}", reason, registry.suggest(name))


def _existing(name: str) -> Path:
    path = found = Path(name)
    exists = False
    with suppress(OSError, RuntimeError, ValueError):  # no such user, a NUL, a name too long
        found = path.expanduser()
        exists = found.exists()
        if found.is_dir() or is_gguf(found):
            return found
    if not exists and is_gguf_name(found.name):
        raise UsageError(f"model {shown(name)}", "there is no such file", _CHECK_PATH)
    other = describe_file(found.name) if exists and found.is_file() else None
    if other is not None:
        raise UsageError(f"model {shown(name)}", *other)
    reason = "is a file, not a folder" if exists else "there is no such folder"
    if exists and not found.is_file():
        reason = "is neither a folder nor a regular file"
    remedy = "give the folder that holds config.json and the weights, or a .gguf file"
    raise UsageError(f"model {shown(name)}", reason, remedy)


class HuggingFaceSource:
    """Local Hugging Face folders and GGUF files, and the models of the Hugging Face Hub.

    Args:
        store: Directory for what is fetched and converted; by default ``LOLAMA_HOME``, else the user's cache.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = Store(store)
        self._snapshots = Snapshots(self._store)

    def list(self) -> Sequence[ModelInfo]:
        """The aliases, in the order in which they are recommended; then the user's own."""
        return registry.models()

    def resolve(self, name: str, io: CheckpointIO) -> ModelFiles:
        """Everything needed to build a model that is here: a local folder, or one that was fetched.

        Nothing of the folder is run: its code is not imported, and pickled weights pass through torch's
        weights-only reader, once. No connection is made.

        Raises:
            UsageError: if the name means nothing here, with the closest alias.
            ModelError: if the files cannot be used, naming the file, field or tensor.
            NetworkError: for a model that would have to be fetched first.
            NotAvailableError: for conversions whose packages are not installed.
        """
        target = parse_name(name)
        if isinstance(target, Path):
            return self._resolve_path(name, target, io)
        repo, revision = target.repo, target.revision
        for stored in self._stored_as(target):
            commit = self._snapshots.commit_of(stored, revision)
            directory = self._snapshots.find(stored, commit)
            if directory is not None:
                self._snapshots.touch(directory)
                files = self._resolve_path(name, directory, io)
                return replace(files, repo=stored, revision=commit, immutable=True)
        from lolama_hub.download.hf_cache import find_gguf_file, find_snapshot

        cached = None if target.label else find_snapshot(repo, revision, io)
        if cached is not None:
            files = self._resolve_path(name, cached[0], io)
            return replace(files, repo=repo, revision=cached[1])
        alone = find_gguf_file(repo, target.label, revision, io)
        if alone is not None:
            files = self._resolve_path(name, alone[0], io)
            return replace(files, repo=f"{repo}:{alone[1]}", revision=alone[2])
        raise self._absent(target)

    def _stored_as(self, target: HubModel) -> Sequence[str]:
        """What the store may call a model; of several in GGUF the last used comes first."""
        from lolama_hub.download.gguf_choice import is_called

        labels = [(name, name.partition(":")[2]) for name in self._snapshots.labels(target.repo)]
        if target.label:
            return [name for name, label in labels if is_called(label, target.label)]
        used = [model.repo for model in self._snapshots.models()]
        return [target.repo, *sorted((name for name, _ in labels if name in used), key=used.index)]

    def _resolve_path(self, name: str, path: Path, io: CheckpointIO) -> ModelFiles:
        """The model of a folder, in either format, or of a file."""
        if not path.is_dir():
            return resolve_gguf(name, path, io, self._store)
        folder = Folder(path, io, self._store)
        found = find_gguf(folder, names_in(path))
        if found is None:
            return resolve_folder(name, folder)
        return resolve_gguf(name, found, io, self._store, label=folder.label)

    def plan(self, name: str, io: CheckpointIO) -> DownloadPlan:
        """What `fetch` would transfer, to the byte; config.json is read for it, and nothing is written.

        Raises:
            LolamaError: see `ModelSource.plan`.
        """
        target = parse_name(name)
        if isinstance(target, Path):
            raise UsageError(
                f"model {shown(name)}", "is here already", "there is nothing to download"
            )
        from lolama_hub.download import api
        from lolama_hub.download.plan import plan_download

        if api.offline():
            raise self._absent(target)

        def check(subject: str, content: bytes, names: Collection[str]) -> None:
            check_config(Path(subject), io.parse_json(content, subject), names)

        return plan_download(target.repo, target.label, target.revision, self._snapshots, check)

    def fetch(
        self,
        plan: DownloadPlan,
        io: CheckpointIO,
        *,
        confirm: Callable[[DownloadPlan], bool],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Transfer what is missing, if ``confirm`` agrees; resumed where an earlier run stopped.

        Whatever can be told without the weights is checked before their first byte comes.

        Raises:
            LolamaError: see `ModelSource.fetch`.
        """
        from lolama_hub.download.plan import fetch_plan

        def check(directory: Path) -> None:
            names = {file.name for file in plan.files}
            if any(map(is_gguf_name, names)):
                return  # there is nothing beside its weights
            check_small_files(Folder(directory, io, self._store), names)

        return fetch_plan(plan, self._snapshots, confirm, progress, check)

    def stored(self, io: CheckpointIO) -> Sequence[StoredModel]:
        """What has been fetched, wholly or in part, or is usable in Hugging Face's cache; last used first."""
        from lolama_hub.download.hf_cache import whole_models

        models = self._snapshots.models()
        own = {(model.repo, model.revision) for model in models if model.complete}
        for model, folder in whole_models(io):
            with suppress(ModelError):  # of an architecture, or in a state, that lolama cannot use
                path = Folder(folder, io, self._store).require("config.json")
                names = {child.name for child in folder.iterdir()}
                check_config(path, io.read_json(path), names)
                if (model.repo, model.revision) not in own:
                    models.append(model)
        return sorted(models, key=lambda model: -model.last_used)

    def remove(self, name: str) -> int:
        """Delete a fetched model and what was made of it; bytes freed. ``name@revision`` deletes one commit.

        Raises:
            UsageError: if there is no such model here, or it is a folder of the user's own.
        """
        target = parse_name(name)
        if isinstance(target, Path):
            what = "folder" if target.is_dir() else "file"
            reason = f"is a {what} of your own, which lolama does not delete"
            raise UsageError(f"model {shown(name)}", reason, "remove it yourself")
        models = self._snapshots.models()
        names = [
            name for name in self._stored_as(target) if any(name == one.repo for one in models)
        ]
        if len(names) > 1:
            reason = f"is here as {', '.join(sorted(names))}"
            raise UsageError(target.name, reason, "say which of them")
        stored = names[0] if names else target.name
        commit = self._snapshots.commit_of(stored, target.revision) if target.revision else ""
        here = [model for model in models if model.repo == stored]
        if not here or (target.revision and commit not in {model.revision for model in here}):
            reason, remedy = "is not in the store", "`lolama models` lists what is downloaded"
            from lolama_hub.download.hf_cache import holds

            if holds(target.repo):
                reason = "is in Hugging Face's own cache, which lolama does not change"
                remedy = f"remove it with `hf cache rm model/{target.repo}`"
            raise UsageError(target.name, reason, remedy)
        with self._snapshots.lock(stored):
            return self._snapshots.remove(stored, commit)

    def collect_garbage(self) -> int:
        """Delete interrupted downloads, commits that were replaced, and leftovers; bytes freed."""
        return self._snapshots.collect_garbage()

    def _absent(self, target: HubModel) -> NetworkError:
        """Why a model cannot be used without a connection, and how much of it is here."""
        from lolama_hub.download import api

        repo = target.name
        remedy = f"run `lolama pull {repo}{'@' + target.revision if target.revision else ''}`"
        if api.offline():
            remedy += " without HF_HUB_OFFLINE"
        missing = next(
            filter(None, map(self._snapshots.missing_files, self._stored_as(target))), ""
        )
        reason = f"is only partly downloaded: {missing} missing" if missing else "is not downloaded"
        return NetworkError(repo, reason, remedy)
