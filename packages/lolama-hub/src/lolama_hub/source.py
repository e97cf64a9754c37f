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
from lolama_hub.folder.other_formats import describe_file
from lolama_hub.folder.resolve import check_config, check_small_files, resolve_folder
from lolama_hub.store.place import Store
from lolama_hub.store.snapshots import Snapshots

_PATH_STARTS = ("/", "./", "../", "~", "\\", ".\\", "..\\")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class HubModel:
    """A model by its Hugging Face id. ``revision`` is empty for the newest."""

    repo: str
    revision: str = ""


def parse_name(name: str) -> Path | HubModel:
    """What a name means: a local folder or a model of the Hub.

    In this order: whatever looks like a path (``./x``, ``/x``, ``~/x``) is one; then an alias, even if a
    folder beside you has the same name (``./tinyllama`` means the folder); then an existing folder; then
    ``owner/name[@revision]``.

    Raises:
        UsageError: if it is none of these, with the closest alias.
    """
    if name in (".", "..") or name.startswith(_PATH_STARTS) or _DRIVE.match(name):
        return _existing(name)
    info = registry.find(name)
    if info is not None:
        repo, _, revision = info.repo.partition("@")
        return HubModel(repo, revision)
    if name and os.path.exists(name):
        return _existing(name)
    match = registry.HUB_ID.fullmatch(name)
    if match and ".." not in name and "--" not in match[1]:
        return HubModel(match[1], match[2] or "")
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
        if found.is_dir():
            return found
    other = describe_file(found.name)
    if exists and other is not None:
        raise UsageError(f"model {shown(name)}", *other)
    raise UsageError(
        f"model {shown(name)}",
        "is a file, not a folder" if exists else "there is no such folder",
        "give the folder that holds config.json and the weights",
    )


class HuggingFaceSource:
    """Local Hugging Face folders, and the models of the Hugging Face Hub.

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
            return resolve_folder(name, Folder(target, io, self._store))
        repo, revision = target.repo, target.revision
        commit = self._snapshots.commit_of(repo, revision)
        directory = self._snapshots.find(repo, commit)
        if directory is not None:
            self._snapshots.touch(directory)
            files = resolve_folder(name, Folder(directory, io, self._store))
            return replace(files, repo=repo, revision=commit, immutable=True)
        from lolama_hub.download.hf_cache import find_snapshot

        cached = find_snapshot(repo, revision, io)
        if cached is not None:
            files = resolve_folder(name, Folder(cached[0], io, self._store))
            return replace(files, repo=repo, revision=cached[1])
        raise self._absent(target)

    def plan(self, name: str, io: CheckpointIO) -> DownloadPlan:
        """What `fetch` would transfer, to the byte; config.json is read for it, and nothing is written.

        Raises:
            LolamaError: see `ModelSource.plan`.
        """
        target = parse_name(name)
        if isinstance(target, Path):
            raise UsageError(
                f"model {shown(name)}", "is a local folder", "there is nothing to download"
            )
        from lolama_hub.download import api
        from lolama_hub.download.plan import plan_download

        if api.offline():
            raise self._absent(target)

        def check(subject: str, content: bytes, names: Collection[str]) -> None:
            check_config(Path(subject), io.parse_json(content, subject), names)

        return plan_download(target.repo, target.revision, self._snapshots, check)

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
            reason = "is a folder of your own, which lolama does not delete"
            raise UsageError(f"model {shown(name)}", reason, "remove it yourself")
        commit = self._snapshots.commit_of(target.repo, target.revision) if target.revision else ""
        here = [model for model in self._snapshots.models() if model.repo == target.repo]
        if not here or (target.revision and commit not in {model.revision for model in here}):
            reason, remedy = "is not in the store", "`lolama models` lists what is downloaded"
            from lolama_hub.download.hf_cache import holds

            if holds(target.repo):
                reason = "is in Hugging Face's own cache, which lolama does not change"
                remedy = f"remove it with `hf cache rm model/{target.repo}`"
            raise UsageError(target.repo, reason, remedy)
        with self._snapshots.lock(target.repo):
            return self._snapshots.remove(target.repo, commit)

    def collect_garbage(self) -> int:
        """Delete interrupted downloads, commits that were replaced, and leftovers; bytes freed."""
        return self._snapshots.collect_garbage()

    def _absent(self, target: HubModel) -> NetworkError:
        """Why a model cannot be used without a connection, and how much of it is here."""
        from lolama_hub.download import api

        repo = target.repo
        remedy = f"run `lolama pull {repo}{'@' + target.revision if target.revision else ''}`"
        if api.offline():
            remedy += " without HF_HUB_OFFLINE"
        missing = self._snapshots.missing_files(repo)
        reason = f"is only partly downloaded: {missing} missing" if missing else "is not downloaded"
        return NetworkError(repo, reason, remedy)
