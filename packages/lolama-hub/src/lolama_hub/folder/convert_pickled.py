"""Folders that have only pickled ``.bin`` weights: read once, without running what a pickle may hold.

The reading is done by a child process with a cap on its memory, since it passes through a C++ library.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.protocols.types import JSON, CanonicalConfig
from lolama_hub.folder.child_process import run_in_child
from lolama_hub.folder.fields import shown
from lolama_hub.folder.files import PICKLED, SAFETENSORS, Folder, index_shards
from lolama_hub.folder.layouts import LAYOUTS, TextLayout, transforms
from lolama_hub.folder.weight_names import StoredTensors, check_index, match_names
from lolama_hub.store.digests import file_digest

if TYPE_CHECKING:
    from torch import Tensor

_SLACK = 512 * 2**20  # for the interpreter's own needs, beside twice what the files hold
_VERSION = 2  # of what `convert` writes; a new one leaves earlier conversions unused
_log = logging.getLogger(__name__)


def find_pickled(folder: Folder) -> tuple[list[Path], dict[str, str], Path] | None:
    """The ``.bin`` files of a folder, their index's map (empty for a single file), and the file that says so.

    Raises:
        ModelError: for a damaged index or an absent shard.
    """
    single = folder.find(PICKLED)
    if single is not None:
        return [single], {}, single
    index = folder.find(PICKLED + ".index.json")
    if index is None:
        return None
    shards = index_shards(index, folder.json(index.name))
    return (
        [folder.require(name, index.name) for name in sorted(set(shards.values()))],
        shards,
        index,
    )


def convert(
    folder: Folder,
    config: CanonicalConfig,
    layout: TextLayout,
    *,
    tokenizer_json: Path | None,
    chat_template: str | None,
) -> StoredTensors | None:
    """The folder's ``.bin`` weights as a lolama checkpoint in the store, written unless it is there already.

    A conversion is found again by the contents of the files it came from, so a changed one is converted anew.

    Returns:
        Its tensors, under canonical names; None if the folder has no such weights.

    Raises:
        ModelError: for weights that are damaged, or that the weights-only reader refuses.
        ResourceError: if there is no room for the conversion, in memory or on disk.
    """
    found = find_pickled(folder)
    if found is None:
        return None
    files, shards, listing = found
    sources = dict.fromkeys((*files, listing, folder.require("config.json")))
    digests: list[JSON] = [file_digest(path, folder.store) for path in sources]
    place = folder.store.place("converted", folder.label, [_VERSION, *digests])
    if not place.is_dir():
        _log.info("converting %s to safetensors, once, into %s", listing, place)
        size = sum(path.stat().st_size for path in files)
        try:
            run_in_child(
                write_conversion,
                *(files, shards, listing, config, layout.model_type),
                *(place, folder.io, tokenizer_json, chat_template),
                subject=str(listing),
                memory=2 * size + _SLACK,
            )
        except UsageError:
            # Another process was faster, which is as good; anything else would be ours to report.
            if not place.is_dir():
                raise
    weights = place / SAFETENSORS
    headers = folder.io.header(weights)
    return StoredTensors(weights, dict.fromkeys(headers, weights), headers)


def write_conversion(
    files: list[Path],
    shards: Mapping[str, str],
    listing: Path,
    config: CanonicalConfig,
    model_type: str,
    place: Path,
    io: CheckpointIO,
    tokenizer_json: Path | None,
    chat_template: str | None,
) -> None:
    """Read ``.bin`` files and write the checkpoint; what `convert` has a child process do.

    Raises:
        LolamaError: see `convert`.
    """
    tensors = _read_all(files, shards, listing)
    layout = LAYOUTS[model_type]
    names, tied = match_names(listing, tensors, layout, config["model"])
    made = transforms(layout, config["model"], names)
    if config["model"]["tie_word_embeddings"] and not tied and _equal_embeddings(tensors, names):
        # A .bin stores both names of one tensor; safetensors, and we, store it once.
        tied = True
        names.pop("lm_head.weight")
    model = {**config["model"], "tie_word_embeddings": tied}
    io.write(
        place,
        {**config, "model": model},
        (
            (name, made[name](tensors[key]) if name in made else tensors[key])
            for name, key in names.items()
        ),
        tokenizer_json=None if tokenizer_json is None else io.read_text(tokenizer_json),
        chat_template=chat_template,
    )


def _read_all(files: list[Path], shards: Mapping[str, str], listing: Path) -> dict[str, Tensor]:
    parts = {path.name: dict(_read(path)) for path in files}
    if shards:
        check_index(listing, shards, parts)
    return {key: tensor for part in parts.values() for key, tensor in part.items()}


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file, by torch's weights-only reader: tensors and plain containers, no code.

    Raises:
        ModelError: for everything else that a pickle can be.
    """
    import torch

    remedy = "get the file again, or use a version of the model in safetensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's thoughts on old formats help nobody here
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError:
        reason = "does not fit into memory, where it is converted as a whole"
        raise ResourceError(
            str(path), reason, "use a version of the model in safetensors"
        ) from None
    # A damaged or hostile pickle can make the reader raise nearly anything; what it says is not for users.
    except Exception as error:
        raise ModelError(
            str(path),
            f"is not a file of plain tensors ({type(error).__name__}); nothing in it was run",
            remedy,
        ) from error
    if not isinstance(content, dict):
        raise ModelError(str(path), f"holds {kind_of(content)}, expected named tensors", remedy)
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(str(path), f"holds {shown(key)}, which is no named tensor", remedy)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            reason = f"the tensor {shown(key)} is sparse, quantized or empty"
            raise ModelError(str(path), reason, remedy)
        yield key, tensor.detach().contiguous()


def _equal_embeddings(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    import torch

    embedding, head = tensors[names["embed_tokens.weight"]], tensors[names["lm_head.weight"]]
    return embedding.dtype == head.dtype and torch.equal(embedding, head)
