"""A Hugging Face folder: which of its files are opened, that none lies outside it, and what reads them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError, shortage
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import shown
from lolama_hub.store.place import STAGING, Store

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
SENTENCEPIECE = "tokenizer.model"
_LONGEST_NAME = 255


class Folder:
    """Access to the files of one model folder by name, and where what is made of them is kept.

    A file may be a symbolic link as long as it stays inside the folder, or leads to the ``blobs`` of the
    Hugging Face cache that the folder is a snapshot of.

    Args:
        root: An existing directory.
        io: Reader of untrusted files.
        store: Keeps what is converted.
    """

    def __init__(self, root: Path, io: CheckpointIO, store: Store) -> None:
        self.root, self.io, self.store = root, io, store
        resolved = root.resolve()
        self._allowed = [resolved]
        # The cache keeps snapshots/<revision>/<name>, each a link to ../../blobs/<hash>.
        if resolved.parent.name == "snapshots":
            self._allowed.append(resolved.parent.parent / "blobs")

    @property
    def label(self) -> str:
        """The folder's name, for people; while a download goes on, the one that it will have."""
        return self.root.resolve().name.removesuffix(STAGING)

    def find(self, name: str) -> Path | None:
        """The path of the file ``name``, or None if there is none.

        Raises:
            ModelError: if it is not a regular file, or a link that leaves the folder.
        """
        path = self.root / name
        if not os.path.lexists(path):
            return None
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError) as error:
            found = shortage(error, str(path))
            if found is not None:
                raise found from None
            reason = getattr(error, "strerror", None) or "a link that leads in a circle"
            raise ModelError(
                str(path), f"cannot be opened: {reason}", "get the file again"
            ) from None
        if not any(target.is_relative_to(place) for place in self._allowed):
            raise ModelError(
                str(path),
                "is a link that leaves the model's folder",
                "put the file itself in its place",
            )
        if not stat.S_ISREG(mode):
            raise ModelError(str(path), "is not a regular file", "get the file again")
        return path

    def require(self, name: str, listed_in: str = "") -> Path:
        """The same, where the file must exist.

        Raises:
            ModelError: naming it, and the file that lists it, if any.
        """
        path = self.find(name)
        if path is None:
            where = f", though {listed_in} lists it" if listed_in else ""
            raise ModelError(
                str(self.root / name), f"does not exist{where}", "get the missing file"
            )
        return path

    def json(self, name: str) -> dict[str, JSON]:
        """The object in the JSON file ``name``; empty if there is no such file.

        Raises:
            ModelError: if the file cannot be used.
        """
        path = self.find(name)
        return {} if path is None else self.io.read_json(path)

    def first(self, *names: str) -> Path | None:
        """The first of several names that exists, or None."""
        for name in names:
            path = self.find(name)
            if path is not None:
                return path
        return None


def index_shards(index: Path, values: dict[str, JSON]) -> dict[str, str]:
    """The ``weight_map`` of a shard index: published tensor name → name of a file beside it.

    Raises:
        ModelError: for a map that is missing, empty or not of strings, and for a file name that is
            anything but the plain name of a neighbor.
    """
    remedy = "get the index file again"
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(str(index), "has no weight_map, or an empty one", remedy)
    shards: dict[str, str] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str):
            raise ModelError(
                str(index), f"puts {shown(key)} into {shown(name)}, expected a file name", remedy
            )
        shards[key] = name
    # A map has many keys and few files; each file name is looked at once.
    for name in sorted(set(shards.values())):
        if not _is_plain(name):
            raise ModelError(
                str(index),
                f"names the file {shown(name)}, expected the plain name of a file beside it",
                remedy,
            )
    return shards


def _is_plain(name: str) -> bool:
    """Whether a name can only mean a file in the same directory, on every system."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
        and name not in (".", "..")
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
    )
