"""What is made of a model bit by bit, kept until all of it is there: a run that was broken off goes on.

::

    unfinished/llama-<digest>/       what one model with certain options is made of; `kept` does not see it
        text/, layers.0/, ...        parts, each a lolama checkpoint, there whole or not at all
    locks/llama-<digest>             held while somebody makes it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lolama_core
import lolama_hub
import lolama_quant
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, CanonicalConfig, ModelFiles

if TYPE_CHECKING:
    from torch import Tensor

KIND = "unfinished"
"""The store's sub-directory of it."""

_DTYPES = {"int64": "I64", "float32": "F32", "float16": "F16", "uint8": "U8"}
"""Those that parts have: as torch spells them → as safetensors does."""


class Unfinished:
    """The parts of one model that are made so far.

    Args:
        place: Their directory; it is made with the first part.
        files: The model that they are made from.
        identity: All that parts depend on, as a digest.
    """

    def __init__(self, place: Path, files: ModelFiles, identity: str) -> None:
        self.place, self._files, self._identity = place, files, identity

    def read(self, name: str, depends: str = "") -> dict[str, Tensor] | None:
        """The tensors of a part; None if it is not there, damaged, or made of something else.

        Args:
            name: What the part is called.
            depends: What else it was made from, as it was told to `write`.
        """
        try:
            files = lolama_core.open_checkpoint(self.place / name)
            if files.config.get("source") != self._source(depends):
                return None
            return dict(lolama_core.FileCheckpoint(files).tensors())
        except ModelError:
            return None

    def write(self, name: str, tensors: Mapping[str, Tensor], depends: str = "") -> None:
        """Add a part, or put it in the place of one that `read` refuses.

        Raises:
            ResourceError: if the disk is full.
        """
        self.remove(name)
        declared: dict[str, JSON] = {
            path: _DTYPES[str(one.dtype).removeprefix("torch.")] for path, one in tensors.items()
        }
        config = cast(CanonicalConfig, dict(self._files.config))
        config |= {"quantization": {"tensors": declared}, "source": self._source(depends)}
        lolama_core.write_checkpoint(self.path(name), config, tensors.items(), tokenizer_json=None)

    def path(self, name: str) -> Path:
        """Where a part is, or belongs."""
        self.place.mkdir(exist_ok=True)
        return self.place / name

    def remove(self, name: str) -> None:
        """Forget a part, if it is there."""
        shutil.rmtree(self.place / name, ignore_errors=True)

    def _source(self, depends: str) -> dict[str, JSON]:
        return {"made_from": self._identity, "and": depends}


@contextmanager
def unfinished(files: ModelFiles, identity: JSON) -> Iterator[Unfinished]:
    """What there is of a model; it is gone once the block has ended well, and stays if not.

    Another process that makes the same waits for the end of the block.

    Args:
        files: The model that it is made from.
        identity: All that it depends on, but for versions: another one may choose other numbers.

    Raises:
        ResourceError: if there can be no store.
    """
    import torch

    packages = (lolama_core, lolama_quant, torch)
    whole: JSON = [identity, [package.__version__ for package in packages]]
    store = lolama_hub.Store()
    place = store.place(KIND, files.family, whole)
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    with lolama_hub.locked(store.directory("locks") / place.name):
        yield Unfinished(place, files, digest)
        shutil.rmtree(place, ignore_errors=True)


def collect_garbage() -> int:
    """Delete what was broken off and nobody is at; bytes freed."""
    store, freed = lolama_hub.Store(), 0
    if not (store.root / KIND).is_dir():
        return freed
    for place in sorted((store.root / KIND).iterdir()):
        lock = store.directory("locks") / place.name
        handle = lolama_hub.try_lock(lock)
        if handle is not None:
            try:
                freed += sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.unlink(lock)
                os.close(handle)
    return freed
