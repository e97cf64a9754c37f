"""A folder in Hugging Face's layout → `ModelFiles`, and what can be told before its weights are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
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
from lolama_hub.folder.layouts.vision import VisionLayout, find_vision_layout
from lolama_hub.folder.other_formats import names_in, refuse_layout
from lolama_hub.folder.text_config import find_layout, read_model
from lolama_hub.folder.tokenizer_files import TokenizerParts, read_tokenizer
from lolama_hub.folder.vision_config import read_language_model, read_vision_model
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
    published = find_vision_layout(values)
    if published is not None and published.sees:
        return resolve_vision.resolve_vision(name, folder, path, values)
    text = _read_text(folder, path, values)
    config, model, layout = text.config, text.config["model"], text.layout
    stored = read_safetensors(folder)
    converted = stored is None
    if stored is None and published is None:
        stored = convert(
            folder,
            config,
            layout,
            tokenizer_json=text.tokenizer.files.tokenizer_json,
            chat_template=text.tokenizer.files.chat_template,
        )
        layout = replace(layout, tensors={name: name for name in layout.tensors})
    if stored is None:
        refuse_layout(folder.root, names_in(folder.root))
        raise ModelError(
            str(folder.root),
            f"holds no weights: neither {SAFETENSORS} nor {PICKLED}, nor an index of shards",
            "get the model's weight files",
        )
    names, tied = text.match(stored.listing, stored.headers, layout)
    model["tie_word_embeddings"] = tied
    config["dtype"] = stored_dtype(stored, names)
    return ModelFiles(
        name=name,
        config=config,
        tensors=stored.locations(names, {} if converted else transforms(layout, model, names)),
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
    published = find_vision_layout(values)
    if published is None:
        read_model(path, values, find_layout(path, values))
        return
    if published.sees:
        read_vision_model(None, path, values)
    else:
        read_language_model(path, values, published)
    if not any(name.endswith(".safetensors") for name in names):
        reason = "belongs to a vision model, whose weights are read from safetensors alone"
        raise ModelError(str(path), reason, "get a version of the model in safetensors")


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
    published = find_vision_layout(values)
    if published is not None and published.sees:
        vision = resolve_vision.read_parts(folder, path, values)
        tokenizer = vision.tokenizer
        if index is not None:
            resolve_vision.match_vision_names(index, shards, vision.model)
    else:
        text = _read_text(folder, path, values)
        tokenizer = text.tokenizer
        if index is not None:
            text.match(index, shards, text.layout)
    if tokenizer.files.tokenizer_json is None:
        # In a folder of one's own it may be missing; gigabytes that no text can be given to are not fetched.
        reason = "has neither tokenizer.json nor tokenizer.model"
        raise ModelError(str(folder.root), reason, "choose another repository")


@dataclass(frozen=True)
class _Text:
    """What a text model's folder says besides its weights. ``config`` lacks what only those tell.

    Of a vision model whose pictures are not supported it is the language model.
    """

    layout: TextLayout
    config: CanonicalConfig
    tokenizer: TokenizerParts
    inside: VisionLayout | None

    def match(
        self, listing: Path, keys: Iterable[str], layout: TextLayout
    ) -> tuple[dict[str, str], bool]:
        """See `match_names`."""
        model = self.config["model"]
        if self.inside is not None:
            return resolve_vision.match_language_model(listing, keys, layout, model)
        return match_names(listing, keys, layout, model)


def _read_text(folder: Folder, path: Path, values: Mapping[str, JSON]) -> _Text:
    inside = find_vision_layout(values)
    if inside is not None:
        layout, fields, model = read_language_model(path, values, inside)
    else:
        layout, fields = find_layout(path, values), Fields(path, values)
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
            fields,
            vocab_size=vocab_size,
            tokenizer_size=tokenizer.size,
            tokenizer_eos=tokenizer.eos_id,
            outer=values if inside is not None else {},
        ),
        "tokenizer": tokenizer.block,
        "source": {"model_type": values.get("model_type")},
    }
    return _Text(layout, config, tokenizer, inside)
