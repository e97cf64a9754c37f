"""A local folder of a LLaVA → `ModelFiles`, whichever of the five layouts it is in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    CanonicalConfig,
    GenerationBlock,
    ModelFiles,
)
from lolama_hub.folder.fields import shown
from lolama_hub.folder.files import Folder
from lolama_hub.folder.generation_config import read_generation
from lolama_hub.folder.layouts import TextLayout, llava, transforms
from lolama_hub.folder.layouts.encoders import HEAD, encoder_names, unused_names
from lolama_hub.folder.layouts.picture_templates import TEMPLATES, VICUNA_TEMPLATE
from lolama_hub.folder.layouts.transforms import Transform
from lolama_hub.folder.other_formats import names_in, refuse_layout
from lolama_hub.folder.picture_marks import read_picture_marks, read_spelled_picture
from lolama_hub.folder.tokenizer_files import TokenizerParts, read_tokenizer
from lolama_hub.folder.vision_config import VisionModel, read_vision_model
from lolama_hub.folder.weight_names import listed, match_names, read_safetensors, stored_dtype

_LAYER = re.compile(r"vision\.encoder\.layers\.(\d{1,9})\.")


_TEXT = "language_model."
_REMEDY = "the weights and config.json must be of the same model"


@dataclass(frozen=True)
class VisionParts:
    """What the folder of a vision model says besides its weights."""

    model: VisionModel
    tokenizer: TokenizerParts
    generation: GenerationBlock


def resolve_vision(name: str, folder: Folder, path: Path, values: Mapping[str, JSON]) -> ModelFiles:
    """Everything needed to build the model.

    Raises:
        ModelError: naming the file, field or tensor that cannot be used.
    """
    parts = read_parts(folder, path, values)
    model, tokenizer = parts.model, parts.tokenizer
    stored = read_safetensors(folder)
    if stored is None:
        refuse_layout(folder.root, names_in(folder.root))
        reason = "holds no model.safetensors, nor an index of shards"
        raise ModelError(str(folder.root), reason, "get a version of the model in safetensors")
    names, tied = match_vision_names(stored.listing, stored.headers, model)
    model.text["tie_word_embeddings"] = tied
    config: CanonicalConfig = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "family": "llava",
        "model": model.block,
        "dtype": stored_dtype(stored, names),
        "generation": parts.generation,
        "tokenizer": tokenizer.block,
        "source": {"model_type": values.get("model_type")},
    }
    return ModelFiles(
        name=name,
        config=config,
        tensors=stored.locations(names, _made(model, names)),
        tokenizer=tokenizer.files,
    )


def _made(model: VisionModel, names: Mapping[str, str]) -> dict[str, Transform]:
    """How tensors of the language model and the projector are made that are not stored as they are."""
    own = {name.removeprefix(_TEXT): key for name, key in names.items() if name.startswith(_TEXT)}
    made = transforms(model.layout, model.text, own)
    in_text = {_TEXT + name: transform for name, transform in made.items()}
    return in_text | llava.projector_transforms(model.block, names)


def read_parts(folder: Folder, path: Path, values: Mapping[str, JSON]) -> VisionParts:
    """Configuration, tokenizer and generation defaults: all but the weights.

    Raises:
        ModelError: naming the file or field that cannot be used.
    """
    model = read_vision_model(folder, path, values)
    vocab_size = model.text["vocab_size"]
    assert isinstance(vocab_size, int)
    published = model.published
    usual = TEMPLATES.get(model.layout.model_type, VICUNA_TEMPLATE)
    tokenizer = read_tokenizer(
        folder,
        vocab_size,
        # A folder without a template is no chat model where others of its kind have one.
        picture_template="" if published.bidirectional else published.template or usual,
    )
    if published.bidirectional and tokenizer.files.tokenizer_json is not None:
        token = model.block["image_token_id"]
        assert isinstance(token, int)
        spelled = read_spelled_picture(tokenizer, token)
        tokenizer = spelled.in_template(tokenizer)
        model.block["picture_ids"] = [*spelled.ids]
    preprocessing = model.encoder["preprocessing"]
    assert isinstance(preprocessing, dict)
    if preprocessing["mode"] == "split":
        longest, image_size = preprocessing["longest_edge"], model.encoder["image_size"]
        assert isinstance(longest, int) and isinstance(image_size, int)
        side = math.ceil((longest + longest % 2) / image_size)
        preprocessing["marks"] = read_picture_marks(folder.root, tokenizer, side)
    generation = read_generation(
        folder,
        model.text_fields,
        vocab_size=vocab_size,
        tokenizer_size=tokenizer.size,
        tokenizer_eos=tokenizer.eos_id,
        outer=values,
    )
    return VisionParts(model, tokenizer, generation)


def match_vision_names(
    listing: Path, keys: Iterable[str], model: VisionModel
) -> tuple[dict[str, str], bool]:
    """Canonical name → stored name for the whole model, and whether its embeddings are tied.

    Layers of the encoder behind the one that is used may be there or not.

    Args:
        listing: The file to name in errors.
        keys: The stored names.
        model: What the configuration says.

    Raises:
        ModelError: naming what is missing, unexpected, or there under two names.
    """
    common, own = _common_names(listing, keys)
    text, tied = match_names(listing, common.keys() - own, model.layout, model.text)
    _check_layers(listing, own, model)
    wanted = {
        f"vision_tower.{ours}": llava.VISION + theirs
        for ours, theirs in encoder_names(model.encoder, model.layers_used)
    }
    wanted |= llava.projector_names(model.block, newline=model.published.tiled)
    missing = sorted(set(wanted.values()) - own)
    unused = set(unused_names(model.encoder, model.layers_used, model.num_layers))
    unexpected = sorted(
        common[name]
        for name in own - set(wanted.values())
        if not name.startswith(llava.VISION + HEAD)
        and name.removeprefix(llava.VISION) not in unused
    )
    if missing or unexpected:
        parts = [("lacks", missing), ("holds, unasked for,", unexpected)]
        reason = " and ".join(f"{verb} {listed(names)}" for verb, names in parts if names)
        raise ModelError(str(listing), reason, _REMEDY)
    names = {_TEXT + canonical: common[name] for canonical, name in text.items()}
    return names | {canonical: common[name] for canonical, name in wanted.items()}, tied


def _check_layers(listing: Path, own: Iterable[str], model: VisionModel) -> None:
    layers = {int(match[1]) for match in map(_LAYER.match, own) if match}
    last = max(layers, default=-1)
    if not model.layers_used - 1 <= last < model.num_layers:
        raise ModelError(
            str(listing),
            f"holds {last + 1} layers of the encoder, but config.json says {model.num_layers}",
            _REMEDY,
        )


def match_language_model(
    listing: Path, keys: Iterable[str], layout: TextLayout, model: Mapping[str, JSON]
) -> tuple[dict[str, str], bool]:
    """`match_names` for the language model inside a vision model, whose other tensors are left out.

    Raises:
        ModelError: naming what is missing, unexpected, or there under two names.
    """
    common, own = _common_names(listing, keys)
    names, tied = match_names(listing, common.keys() - own, layout, model)
    return {canonical: common[name] for canonical, name in names.items()}, tied


def _common_names(listing: Path, keys: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Common name → stored name, and the common names of what is no part of the language model."""
    common: dict[str, str] = {}
    for key in keys:
        if key.endswith((".rotary_emb.inv_freq", ".position_ids")):
            continue
        name = llava.common_name(key)
        if name in common:
            reason = f"holds one tensor twice, as {shown(common[name])} and {shown(key)}"
            raise ModelError(str(listing), reason, _REMEDY)
        common[name] = key
    own = {
        name
        for name in common
        if name.startswith((llava.VISION, llava.PROJECTOR)) or name == llava.NEWLINE
    }
    return common, own
