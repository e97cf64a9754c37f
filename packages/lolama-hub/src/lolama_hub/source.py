"""Names → files: the Hugging Face side of lolama."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError, NotAvailableError, UsageError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    CanonicalConfig,
    DownloadPlan,
    ModelFiles,
    ModelInfo,
    TensorLocation,
)
from lolama_hub import registry
from lolama_hub.bin_conversion import convert
from lolama_hub.config import find_layout, read_model
from lolama_hub.fields import Fields, shown
from lolama_hub.folder import Folder
from lolama_hub.generation import read_generation
from lolama_hub.store import Store
from lolama_hub.tokenizers import read_tokenizer
from lolama_hub.vision_folder import VISION_TYPES, resolve_vision
from lolama_hub.weights import match_names, read_safetensors, stored_dtype

_PATH_STARTS = ("/", "./", "../", "~", "\\", ".\\", "..\\")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# The Hub's own rules for each part: letters, digits, "-", "_" and ".", the last two not at either end.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9_][A-Za-z0-9._/-]{{0,199}}))?")


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
        return HubModel(info.repo)
    if name and os.path.exists(name):
        return _existing(Path(name))
    match = _HUB_ID.fullmatch(name)
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
    """Local Hugging Face folders and, in a later version, what the Hugging Face Hub offers.

    Args:
        store: Directory for conversions; by default ``LOLAMA_HOME``, else the user's cache.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = Store(store)

    def list(self) -> Sequence[ModelInfo]:
        """The aliases, in the order in which they are recommended."""
        return registry.MODELS

    def resolve(self, name: str, io: CheckpointIO) -> ModelFiles:
        """Everything needed to build the model of a local folder.

        Nothing of the folder is run: its code is not imported, and pickled weights pass through torch's
        weights-only reader, once.

        Raises:
            UsageError: if the name means nothing here, with the closest alias.
            ModelError: if the files cannot be used, naming the file, field or tensor.
            NotAvailableError: for a model that would have to be downloaded, which this version cannot do,
                and for conversions whose packages are not installed.
        """
        target = parse_name(name)
        if isinstance(target, HubModel):
            _refuse_download(target)
        return self._resolve_folder(name, Folder(target), io)

    def plan(self, name: str) -> DownloadPlan:
        """Not in this version.

        Raises:
            UsageError: if the name means nothing here.
            NotAvailableError: otherwise.
        """
        target = parse_name(name)
        if isinstance(target, HubModel):
            _refuse_download(target)
        raise UsageError(
            f"model {shown(name)}", "is a local folder", "there is nothing to download"
        )

    def fetch(
        self,
        plan: DownloadPlan,
        *,
        confirm: Callable[[DownloadPlan], bool],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Path:
        """Not in this version.

        Raises:
            NotAvailableError: always.
        """
        _refuse_download(HubModel(plan.repo, plan.revision))

    def remove(self, name: str) -> int:
        """Not in this version; a folder of the user's own is never removed.

        Raises:
            UsageError: if the name means nothing here, or is a local folder.
            NotAvailableError: otherwise: nothing can have been downloaded.
        """
        target = parse_name(name)
        if isinstance(target, HubModel):
            raise NotAvailableError(
                target.repo, "this version keeps no downloaded models", "there is nothing to remove"
            )
        raise UsageError(f"model {shown(name)}", "is a folder of your own", "remove it yourself")

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
            tensors={
                canonical: TensorLocation(path=stored.files[key], key=key)
                for canonical, key in names.items()
            },
            tokenizer=tokenizer.files,
        )


def _refuse_download(model: HubModel) -> NoReturn:
    raise NotAvailableError(
        model.repo,
        "is a model of the Hugging Face Hub, and this version of lolama does not download yet",
        "get its files by other means and give the path of the folder that holds them",
    )
