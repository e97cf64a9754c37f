"""A folder in Hugging Face's layout → `ModelFiles`, and what can be told before its weights are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    CanonicalConfig,
    ModelFiles,
)
from lolama_hub.folder import resolve_vision
from lolama_hub.folder.convert_pickled import convert
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.files import PICKLED, SAFETENSORS, Folder, index_shards
from lolama_hub.folder.generation_config import read_generation
from lolama_hub.folder.layouts import TextLayout, transforms
from lolama_hub.folder.layouts.vision import find_vision_layout
from lolama_hub.folder.other_formats import names_in, refuse_layout
from lolama_hub.folder.text_config import find_layout, read_model
from lolama_hub.folder.tokenizer_files import TokenizerParts, read_tokenizer
from lolama_hub.folder.vision_config import read_vision_model
from lolama_hub.folder.weight_names import match_names, read_safetensors, stored_dtype


def resolve_folder(name: str, folder: Folder) -> ModelFiles:
    """Everything needed to build the model of a folder.

    Raises:
        ModelError: naming the file, field or tensor that cannot be used.
        NotAvailableError: for conversions whose packages are not installed.
    """
    if folder.find("config.json") is None:
        refuse_layout(folder.root, names_in(folder.root))
    path = folder.require("config.json")
    values = folder.json(path.name)
    if find_vision_layout(values):
        return resolve_vision.resolve_vision(name, folder, path, values)
    text = _read_text(folder, path, values)
    config, model, table = text.config, text.config["model"], text.layout.tensors
    stored = read_safetensors(folder)
    converted = stored is None
    if stored is None:
        stored = convert(
            folder,
            config,
            text.layout,
            tokenizer_json=text.tokenizer.files.tokenizer_json,
            chat_template=text.tokenizer.files.chat_template,
        )
        table = {name: name for name in table}
    if stored is None:
        refuse_layout(folder.root, names_in(folder.root))
        raise ModelError(
            str(folder.root),
            f"holds no weights: neither {SAFETENSORS} nor {PICKLED}, nor an index of shards",
            "get the model's weight files",
        )
    names, tied = match_names(stored.listing, stored.headers, table, model)
    model["tie_word_embeddings"] = tied
    config["dtype"] = stored_dtype(stored, names)
    return ModelFiles(
        name=name,
        config=config,
        tensors=stored.locations(names, {} if converted else transforms(text.layout, model, names)),
        tokenizer=text.tokenizer.files,
    )


def check_config(path: Path, values: Mapping[str, JSON], names: Collection[str]) -> None:
    """Refuse a config.json that no weights could make usable, or not those at hand.

    Args:
        path: What errors name as its place.
        values: What it holds.
        names: Files that stand beside it.

    Raises:
        ModelError: naming the architecture or field.
    """
    if find_vision_layout(values):
        read_vision_model(None, path, values)
        if not any(name.endswith(".safetensors") for name in names):
            reason = "belongs to a vision model, whose weights are read from safetensors alone"
            raise ModelError(str(path), reason, "get a version of the model in safetensors")
    else:
        read_model(path, values, find_layout(path, values))


def check_small_files(folder: Folder, names: Collection[str]) -> None:
    """Refuse a folder whose weights need not come, since something else in it cannot be used.

    Args:
        folder: All that a model has but its weights. Of these an index at most is here.
        names: Files that the folder is to have in the end.

    Raises:
        ModelError: naming the file, field or tensor that cannot be used.
        NotAvailableError: for conversions whose packages are not installed.
    """
    path = folder.require("config.json")
    values = folder.json(path.name)
    index = folder.first(f"{SAFETENSORS}.index.json", f"{PICKLED}.index.json")
    shards = index_shards(index, folder.json(index.name)) if index is not None else {}
    absent = sorted(set(shards.values()) - set(names))
    if absent:
        raise ModelError(
            str(index), f"lists {absent[0]}, which is not there", "choose another repository"
        )
    if find_vision_layout(values):
        vision = resolve_vision.read_parts(folder, path, values)
        tokenizer = vision.tokenizer
        if index is not None:
            resolve_vision.match_vision_names(index, shards, vision.model)
    else:
        text = _read_text(folder, path, values)
        tokenizer = text.tokenizer
        if index is not None:
            match_names(index, shards, text.layout.tensors, text.config["model"])
    if tokenizer.files.tokenizer_json is None:
        # In a folder of one's own it may be missing; gigabytes that no text can be given to are not fetched.
        reason = "has neither tokenizer.json nor tokenizer.model"
        raise ModelError(str(folder.root), reason, "choose another repository")


@dataclass(frozen=True)
class _Text:
    """What a text model's folder says besides its weights. ``config`` lacks what only those tell."""

    layout: TextLayout
    config: CanonicalConfig
    tokenizer: TokenizerParts


def _read_text(folder: Folder, path: Path, values: Mapping[str, JSON]) -> _Text:
    layout = find_layout(path, values)
    model = read_model(path, values, layout)
    vocab_size = model["vocab_size"]
    assert isinstance(vocab_size, int)
    tokenizer = read_tokenizer(folder, vocab_size)
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
        ),
        "tokenizer": tokenizer.block,
        "source": {"model_type": layout.model_type},
    }
    return _Text(layout, config, tokenizer)
