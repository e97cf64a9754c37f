"""Names → files: the Hugging Face side of lolama."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError, NetworkError, UsageError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    CanonicalConfig,
    DownloadPlan,
    ModelFiles,
    ModelInfo,
    StoredModel,
)
from lolama_hub import registry
from lolama_hub.bin_conversion import convert
from lolama_hub.config import find_layout, read_model
from lolama_hub.fields import Fields, shown
from lolama_hub.folder import Folder
from lolama_hub.generation import read_generation
from lolama_hub.snapshots import Snapshots
from lolama_hub.store import Store
from lolama_hub.tokenizers import read_tokenizer
from lolama_hub.vision_folder import VISION_TYPES, resolve_vision
from lolama_hub.weights import match_names, read_safetensors, stored_dtype

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
        return _existing(Path(name))
    info = registry.find(name)
    if info is not None:
        repo, _, revision = info.repo.partition("@")
        return HubModel(repo, revision)
    if name and os.path.exists(name):
        return _existing(Path(name))
    match = registry.HUB_ID.fullmatch(name)
    if match and ".." not in name and "--" not in match[1]:
        return HubModel(match[1], match[2] or "")
    reason = "is neither an alias, a folder, nor an id of the form owner/name"
    raise UsageError(f"model {shown(name)}", reason, registry.suggest(name))


def _existing(path: Path) -> Path:
    try:
        found = path.expanduser()
        if found.is_dir():
            return found
        reason = "is a file, not a folder" if found.exists() else "there is no such folder"
    except (OSError, RuntimeError, ValueError):  # no such user, a NUL, a name too long
        reason = "there is no such folder"
    raise UsageError(
        f"model {shown(str(path))}",
        reason,
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
            return self._resolve_folder(name, Folder(target), io)
        repo, revision = target.repo, target.revision
        commit = self._snapshots.commit_of(repo, revision)
        directory = self._snapshots.find(repo, commit)
        if directory is not None:
            self._snapshots.touch(directory)
            files = self._resolve_folder(name, Folder(directory), io)
            return replace(files, repo=repo, revision=commit, immutable=True)
        from lolama_hub.hf_cache import find_snapshot

        cached = find_snapshot(repo, revision)
        if cached is not None:
            files = self._resolve_folder(name, Folder(cached[0]), io)
            return replace(files, repo=repo, revision=cached[1])
        raise self._absent(target)

    def plan(self, name: str) -> DownloadPlan:
        """What `fetch` would transfer, to the byte.

        Raises:
            LolamaError: see `ModelSource.plan`.
        """
        target = parse_name(name)
        if isinstance(target, Path):
            raise UsageError(
                f"model {shown(name)}", "is a local folder", "there is nothing to download"
            )
        from lolama_hub import hub_api
        from lolama_hub.download import plan_download

        if hub_api.offline():
            raise self._absent(target)
        return plan_download(target.repo, target.revision, self._snapshots)

    def fetch(
        self,
        plan: DownloadPlan,
        *,
        confirm: Callable[[DownloadPlan], bool],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Transfer what is missing, if ``confirm`` agrees; resumed where an earlier run stopped.

        Raises:
            LolamaError: see `ModelSource.fetch`.
        """
        from lolama_hub.download import fetch_plan

        return fetch_plan(plan, self._snapshots, confirm, progress)

    def stored(self) -> Sequence[StoredModel]:
        """What has been fetched, wholly or in part, the last used first."""
        return self._snapshots.models()

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
            raise UsageError(
                target.repo, "is not in the store", "`lolama models` lists what is downloaded"
            )
        with self._snapshots.lock(target.repo):
            return self._snapshots.remove(target.repo, commit)

    def collect_garbage(self) -> int:
        """Delete interrupted downloads, commits that were replaced, and leftovers; bytes freed."""
        return self._snapshots.collect_garbage()

    def _absent(self, target: HubModel) -> NetworkError:
        """Why a model cannot be used without a connection, and how much of it is here."""
        from lolama_hub import hub_api

        repo = target.repo
        remedy = f"run `lolama pull {repo}{'@' + target.revision if target.revision else ''}`"
        if hub_api.offline():
            remedy += " without HF_HUB_OFFLINE"
        missing = self._snapshots.missing_files(repo)
        reason = f"is only partly downloaded: {missing} missing" if missing else "is not downloaded"
        return NetworkError(repo, reason, remedy)

    def _resolve_folder(self, name: str, folder: Folder, io: CheckpointIO) -> ModelFiles:
        path = folder.require("config.json")
        values = io.read_json(path)
        if values.get("model_type") in VISION_TYPES:
            return resolve_vision(name, folder, path, values, self._store, io)
        layout = find_layout(path, values)
        model = read_model(path, values, layout)
        vocab_size = model["vocab_size"]
        assert isinstance(vocab_size, int)
        tokenizer = read_tokenizer(folder, vocab_size, self._store, io)
        config: CanonicalConfig = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "family": "llama",
            "model": model,
            "dtype": "float32",
            "generation": read_generation(
                folder,
                Fields(path, values),
                vocab_size=vocab_size,
                tokenizer_size=tokenizer.size,
                tokenizer_eos=tokenizer.eos_id,
                io=io,
            ),
            "tokenizer": tokenizer.block,
            "source": {"model_type": layout.model_type},
        }
        table = layout.tensors
        stored = read_safetensors(folder, io)
        if stored is None:
            stored = convert(
                folder,
                config,
                layout,
                self._store,
                io,
                tokenizer_json=tokenizer.files.tokenizer_json,
                chat_template=tokenizer.files.chat_template,
            )
            table = {name: name for name in layout.tensors}
        if stored is None:
            raise ModelError(
                str(folder.root),
                "holds no weights: neither model.safetensors nor pytorch_model.bin, nor an index of shards",
                "get the model's weight files",
            )
        names, tied = match_names(stored.listing, stored.headers, table, model)
        model["tie_word_embeddings"] = tied
        config["dtype"] = stored_dtype(stored, names)
        return ModelFiles(
            name=name,
            config=config,
            tensors=stored.locations(names),
            tokenizer=tokenizer.files,
        )
