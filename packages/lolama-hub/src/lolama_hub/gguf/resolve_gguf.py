"""A model in GGUF → `ModelFiles`: one file, all parts of one, or the only model in a folder."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    CanonicalConfig,
    ModelFiles,
)
from lolama_hub.folder.fields import shown
from lolama_hub.folder.files import Folder
from lolama_hub.folder.layouts import LAYOUTS, transforms
from lolama_hub.folder.layouts.transforms import Transform
from lolama_hub.folder.text_config import read_model
from lolama_hub.gguf.architectures import find_architecture, read_fields
from lolama_hub.gguf.generation import read_generation
from lolama_hub.gguf.metadata import GGUFModel
from lolama_hub.gguf.stored_weights import read_weights
from lolama_hub.gguf.tensor_names import biases, match_names
from lolama_hub.gguf.tokenizer import read_gguf_tokenizer
from lolama_hub.store.place import Store

_GGUF = re.compile(r".+\.gguf", re.IGNORECASE | re.DOTALL)
_LATER_PART = re.compile(r".*-(?!00001-)\d{5}-of-\d{5}\.gguf", re.IGNORECASE | re.DOTALL)
_OF_PICTURES = re.compile(r"(.*[-_.])?mmproj[-_.].*", re.IGNORECASE | re.DOTALL)
_NO_MODELS = {
    "adapter": "an adapter (LoRA), which changes another model",
    "imatrix": "an importance matrix, by which a model is quantized",
}
"""What a file is of, by ``general.type``."""
_WEIGHTS = re.compile(r"model.*\.safetensors|pytorch_model.*\.bin", re.DOTALL)


def is_gguf_name(name: str) -> bool:
    """Whether a file is called as one in GGUF is."""
    return _GGUF.fullmatch(name) is not None


def is_model_name(name: str) -> bool:
    """Whether a file is called as a language model in GGUF is, or as a part of one."""
    return is_gguf_name(name) and _OF_PICTURES.fullmatch(name) is None


def is_gguf(path: Path) -> bool:
    """Whether a path is of a model in GGUF: by its name, or by its first bytes, as Ollama keeps models."""
    if not path.is_file():
        return False
    if is_gguf_name(path.name):
        return True
    with suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"GGUF"
    return False


@dataclass(frozen=True)
class Interpreted:
    """What metadata and tensors of a file stand for.

    Attributes:
        model_type: What config.json would call the architecture.
        block: The canonical ``model`` block.
        names: Canonical name → GGUF's name of all tensors.
        moved: Canonical name → which rows it is of, and in which order, if not all as they are stored.
    """

    model_type: str
    block: dict[str, JSON]
    names: dict[str, str]
    moved: dict[str, Transform]


def interpret(model: GGUFModel) -> Interpreted:
    """What a model is, told from its headers.

    Raises:
        ModelError: naming the key or tensor that cannot be used.
    """
    kind = model.metadata.get("general.type")
    if isinstance(kind, str) and kind in _NO_MODELS:
        reason = f"holds {_NO_MODELS[kind]}, and no model"
        raise ModelError(str(model.path), reason, "give the .gguf file of that model")
    architecture = find_architecture(str(model.path), model.architecture)
    fields = read_fields(model, architecture)
    model_type = fields["model_type"]
    assert isinstance(model_type, str)
    # Norms are stored as they are used, whatever is added to those of the family's folders.
    layout = replace(LAYOUTS[model_type], norm_offset=0, interleaved=architecture.interleaved)
    block = read_model(model.path, fields, layout) | biases(model)
    names = match_names(model, layout, architecture.renamed, block)
    return Interpreted(model_type, block, names, transforms(layout, block, names))


def resolve_gguf(
    name: str, path: Path, io: CheckpointIO, store: Store, *, label: str = ""
) -> ModelFiles:
    """Everything needed to build the model in a file, or in all parts of one.

    Args:
        name: What the model is called in messages.
        path: The file, or any part.
        io: Reader of untrusted files.
        store: Keeps the tokenizer.json that is made.
        label: Whose it is, for people who look into the store; by default the file's.

    Raises:
        ModelError: naming the file, key or tensor that cannot be used.
    """
    model = GGUFModel(io.gguf_parts(path))
    read = interpret(model)
    block = read.block
    weights = read_weights(model, read.names, read.moved)
    vocab_size = block["vocab_size"]
    assert isinstance(vocab_size, int)
    tokenizer = read_gguf_tokenizer(
        model.path, model.first.metadata, vocab_size, store=store, label=label or model.path.stem
    )
    config: CanonicalConfig = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "family": "llama",
        "model": block,
        "dtype": weights.dtype,
        "generation": read_generation(model, tokenizer.size, tokenizer.eos_ids),
        "tokenizer": tokenizer.block,
        "source": {"model_type": read.model_type, "format": "gguf"},
    }
    if weights.quantization is not None:
        config["quantization"] = weights.quantization
    return ModelFiles(
        name=name, config=config, tensors=weights.locations, tokenizer=tokenizer.files
    )


def find_gguf(folder: Folder, names: Collection[str]) -> Path | None:
    """The model in GGUF that a folder holds; None if its weights are in another format, or there are none.

    Args:
        folder: The folder.
        names: Names of what is in it.

    Raises:
        ModelError: if it holds several models, naming them.
    """
    if any(_WEIGHTS.fullmatch(name) for name in names):
        return None
    named = sorted(filter(is_model_name, names))
    # Later parts stand for a model whose first one is missing, which they tell.
    models = [name for name in named if not _LATER_PART.fullmatch(name)] or named[:1]
    if not models:
        return None
    if len(models) > 1:
        some = ", ".join(shown(name) for name in models[:5])
        more = f" and {len(models) - 5} more" if len(models) > 5 else ""
        reason = f"holds {len(models)} models in GGUF ({some}{more})"
        raise ModelError(str(folder.root), reason, "give the path of one of them")
    begin = models[0].partition("-00001-of-")[0]
    for name in names:
        if is_gguf_name(name) and name.startswith(begin):
            folder.require(name)  # no part is a link that leaves the folder
    return folder.root / models[0]
