"""What a `PrefixTree` keeps, as a file: written, read, checked, and refused for another model.

It is a safetensors file. ``layers.N.keys`` and ``layers.N.values`` hold each page once, those first that were
used last: (P, K, PAGE, head_dim), as `Pages` has them. ``texts`` is JSON: which model made the pages, the
sums of their tensors, their ``cache_dtype`` if it is not the model's own, and which page each one follows,
with the keys of its positions. ``digest`` is the SHA-256 of ``texts``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lolama_core.files.checkpoint_reader import check_finite
from lolama_core.files.prefix_file import (
    SCHEMA,
    PrefixFile,
    damaged,
    other_model,
    read_prefix_file,
)
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.files.safetensors_writer import SafetensorsWriter
from lolama_core.files.tensor_file import DTYPE_NAMES
from lolama_core.files.untrusted import MAX_JSON_BYTES
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import (
    FULL_DISK,
    LolamaError,
    ModelError,
    ResourceError,
    UsageError,
)
from lolama_core.protocols.types import JSON
from lolama_core.protocols.whole_file import remove_unfinished, whole_file
from lolama_core.runtime.int8_cache import scales_of
from lolama_core.runtime.model_identity import model_identity, sums_of
from lolama_core.runtime.pages import PAGE, Pages
from lolama_core.runtime.prefix_tree import KeptPage, PrefixTree
from lolama_core.runtime.saved_keys import keys_from_json, keys_to_json


def save_prefixes(tree: PrefixTree, pages: Pages, path: Path, model: CausalLM) -> None:
    """Write what a tree keeps: whole, or not at all. Nobody else may read the file: it tells what was said.

    Of a text those positions are left out that follow one whose key JSON cannot hold. If all keys take more
    than 16 MiB, what was not used for the longest time is left out.

    Args:
        tree: The texts.
        pages: The memory of its pages.
        path: A file that is there is replaced.
        model: What ran them.

    Raises:
        UsageError: if ``path`` is no place for a file, or ``model`` cannot be told from another.
        ResourceError: if it cannot be written.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError(str(path), "is not a regular file", "give another name")
    identity = model_identity(model)
    kept, listed = _listed(tree.kept())
    try:
        remove_unfinished(path)
        with whole_file(path, mode=0o600) as file:
            writer, sums = SafetensorsWriter(file), {}
            for name, layer in _layers(pages):
                tensor = _copied(layer, kept)
                sums[name] = sums_of(tensor).hex()
                writer.add(name, tensor)
            texts = {"schema": SCHEMA, "model": identity, "sums": sums, "pages": listed}
            if pages.cache_dtype is not None:
                texts["cache_dtype"] = pages.cache_dtype
            content = json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode()
            writer.add("texts", _tensor(content))
            writer.add("digest", _tensor(hashlib.sha256(content).digest()))
            writer.finish()
    except OSError as error:
        raise _not_written(path, error) from error


def restore_prefixes(
    tree: PrefixTree, pages: Pages, path: Path, model: CausalLM, most: int | None = None
) -> int:
    """Have a tree keep what a file holds, beside what it keeps already.

    What does not fit is left out: that which was not used for the longest time.

    Args:
        tree: Gets the texts.
        pages: The memory of its pages.
        path: What `save_prefixes` wrote. It may hold anything; nothing is taken from it unless all is sound.
        model: What is going to run texts.
        most: How many pages it may get; None for as many as are free.

    Returns:
        Positions that were taken from the file.

    Raises:
        ModelError: if it is not such a file, or damaged.
        UsageError: if another model wrote it, or ``model`` cannot be told from another.
        ResourceError: if there is no memory to read it.
    """
    try:
        found = read_prefix_file(path)
        file = SafetensorsFile(found.header)
        sums, kept = _read_texts(found, pages, model)
        free = pages.left - pages.idle
        kept = kept[: free if most is None else min(free, most)]
        taken = pages.take(len(kept))
        try:
            for name, layer in _layers(pages):
                tensor = file.read(name)
                if sums[name] != sums_of(tensor).hex():
                    raise damaged(path, f"{name} is not what was written")
                check_finite(name, _numbers(tensor), str(path))
                layer[torch.tensor(taken, dtype=torch.int64)] = tensor[: len(kept)].to(layer.device)
            tree.add([replace(one, page=page) for one, page in zip(kept, taken, strict=True)])
        finally:
            pages.give_back(taken)
    except ModelError as error:
        raise damaged(path, error.reason) from None
    return sum(len(one.keys) for one in kept)


def _layers(pages: Pages) -> Iterator[tuple[str, Tensor]]:
    """Keys and values of each layer, (pages, K, PAGE, head_dim), by their names in a file."""
    for layer, (keys, values) in enumerate(zip(pages.keys, pages.values, strict=True)):
        yield f"layers.{layer}.keys", keys
        yield f"layers.{layer}.values", values


def _numbers(layer: Tensor) -> Tensor:
    """What may be no number in keys or values: they themselves, or the scales of codes."""
    return scales_of(layer) if layer.dtype == torch.int8 else layer


def _listed(kept: Sequence[KeptPage]) -> tuple[list[KeptPage], list[JSON]]:
    """The pages that can be written, and what ``texts`` says of them."""
    places: dict[int | None, int | None] = {None: None}
    chosen: list[KeptPage] = []
    listed: list[JSON] = []
    # A MiB is for what else is said.
    room = MAX_JSON_BYTES - 2**20
    for place, one in enumerate(kept):
        keys = keys_to_json(one.keys)
        if not keys or one.parent not in places:
            continue
        parent = places[one.parent]
        room -= len(json.dumps([parent, keys])) + 1
        if room < 0:
            break
        if len(keys) == PAGE:  # else nothing can follow
            places[place] = len(chosen)
        chosen.append(KeptPage(parent, one.keys[: len(keys)], one.page))
        listed.append([parent, keys])
    return chosen, listed


def _copied(layer: Tensor, kept: Sequence[KeptPage]) -> Tensor:
    """(P, K, PAGE, head_dim): these pages of a layer. Zeros stand where they hold nothing of a text."""
    copied = layer[torch.tensor([one.page for one in kept], dtype=torch.int64)].contiguous()
    for place, one in enumerate(kept):
        copied[place, :, len(one.keys) :] = 0
    return copied


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _read_texts(
    found: PrefixFile, pages: Pages, model: CausalLM
) -> tuple[dict[str, JSON], list[KeptPage]]:
    """The sums of the layers, and the pages of a file: those that ``pages`` can take, of this model.

    Raises:
        ModelError: if it is damaged.
        UsageError: if another model wrote it, or keys and values are in another dtype.
    """
    path, described = found.header.path, found.described
    if described.get("model") != model_identity(model):
        raise other_model(path)
    found.check_cache_dtype(pages.cache_dtype)
    sums, kept = described.get("sums"), _read_pages(described.get("pages"), path)
    expected = {
        name: (DTYPE_NAMES[layer.dtype], (len(kept), *layer.shape[1:]))
        for name, layer in _layers(pages)
    }
    layers = {name: (info.dtype, info.shape) for name, info in found.header.tensors.items()}
    del layers["texts"], layers["digest"]
    if layers != expected or not isinstance(sums, dict) or sums.keys() != expected.keys():
        raise damaged(path, "does not hold keys and values of the model's layers")
    return sums, kept


def _read_pages(listed: JSON, path: Path) -> list[KeptPage]:
    """What ``texts`` says of the pages.

    Raises:
        ModelError: if it makes no sense.
    """
    if not isinstance(listed, list):
        raise damaged(path, "has no list of pages")
    kept: list[KeptPage] = []
    for place, one in enumerate(listed):
        match one:
            case [parent, [_, *_] as values] if len(values) <= PAGE:
                pass
            case _:
                raise damaged(path, f"page {place} is not described as a page is")
        # Whatever follows a page has the whole page before it.
        if parent is not None and not (
            is_integer(parent, 0, place - 1) and len(kept[parent].keys) == PAGE
        ):
            raise damaged(path, f"page {place} follows none")
        try:
            keys = keys_from_json(values)
        except ValueError:
            raise damaged(path, f"page {place} has keys that no text has") from None
        kept.append(KeptPage(parent, keys, -1))
    return kept


def _not_written(path: Path, error: OSError) -> LolamaError:
    reason = f"cannot be written: {error.strerror or error}"
    if error.errno in FULL_DISK:
        return ResourceError(str(path), reason, "free some space or choose another disk")
    return UsageError(str(path), reason, "choose a place where you may write")
