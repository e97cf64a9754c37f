"""config.json of a vision model → the canonical ``model`` block."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.files import Folder
from lolama_hub.folder.layouts import TextLayout
from lolama_hub.folder.layouts.encoders import EncoderLayout
from lolama_hub.folder.layouts.vision import VisionLayout, find_vision_layout
from lolama_hub.folder.other_formats import refuse_quantized
from lolama_hub.folder.preprocessor_config import read_preprocessing
from lolama_hub.folder.text_config import find_layout, read_model

_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
"""transformers' name → ours."""

# A published text_config leaves sizes out that are transformers' defaults (llava-1.5-7b-hf leaves out all).
_COMMON_SIZES: dict[str, JSON] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_TEXT_SIZES: dict[str, dict[str, JSON]] = {
    "llama": {**_COMMON_SIZES, "intermediate_size": 11008},
    "mistral": {**_COMMON_SIZES, "intermediate_size": 14336},
    "qwen2": {**_COMMON_SIZES, "intermediate_size": 22016, "vocab_size": 151936},
    "gemma3_text": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
    },
}


_OF_LOGITS = ("logit_divisor", "logit_softcap")
"""What transformers' vision models leave out of a language model inside: they have a head of their own."""


@dataclass(frozen=True)
class VisionModel:
    """What the configuration of a vision model says.

    Attributes:
        block: The canonical ``model`` block.
        text: Its ``text_config``, which tied embeddings found later may still change.
        encoder: Its ``vision_config``.
        layout: The layout of the language model.
        text_fields: Its part of config.json.
        num_layers: The encoder's number of layers, as published.
        layers_used: How many of them the features need.
        published: The row of its kind.
    """

    block: dict[str, JSON]
    text: dict[str, JSON]
    encoder: dict[str, JSON]
    layout: TextLayout
    text_fields: Fields
    num_layers: int
    layers_used: int
    published: VisionLayout


def read_vision_model(folder: Folder | None, path: Path, values: Mapping[str, JSON]) -> VisionModel:
    """Read the configuration of a folder whose ``model_type`` is one of `VISION_LAYOUTS`.

    A key that is absent means what the same file means to transformers 5.

    Args:
        folder: Where the image processor's files are; None to look at config.json alone.
        path: The path of config.json.
        values: What it holds.

    Raises:
        ModelError: naming the field that is missing, impossible or not supported.
    """
    refuse_quantized(path, values)
    if "mm_vision_tower" in values:
        raise ModelError(
            str(path),
            "is of the original LLaVA, whose tokenizer has no token for pictures",
            "use the conversion that ends in -hf",
        )
    published = find_vision_layout(values)
    assert published is not None
    config = Fields(path, {**values, **published.fixed}, published.defaults)
    layout, text_fields, text = _read_text(config, published)
    encoder, kind, layers_used = _read_encoder(config, published)
    _require(config, "projector_hidden_act", ("gelu",))
    strategy = _require(config, "vision_feature_select_strategy", ("default", "full"))
    has_class_token = kind.switches.get("class_token", True)
    if strategy == "default" and not has_class_token:
        expected = f"full, since {kind.model_type} has no class token"
        raise config.refuse("vision_feature_select_strategy", expected)
    pinpoints = config.get("image_grid_pinpoints") or published.defaults.get("image_grid_pinpoints")
    image_size, num_layers = encoder["image_size"], encoder["num_layers"]
    assert isinstance(image_size, int) and isinstance(num_layers, int)
    preprocessing = read_preprocessing(
        folder, image_size, pinpoints if published.tiled else None, kind.processor
    )
    if "vision_aspect_ratio" in published.defaults:
        preprocessing["max_tiles"] = _read_max_tiles(config)
    encoder |= {
        "keep_class_token": strategy == "full" and has_class_token,
        "preprocessing": preprocessing,
    }
    token = "image_token_id" if "image_token_id" in config else "image_token_index"
    token = "image_token_id" if "image_token_id" in published.defaults else token
    block: dict[str, JSON] = {
        "vision_config": encoder,
        "text_config": text,
        "image_token_id": config.integer(token, low=0),
        "projector_bias": config.boolean("multimodal_projector_bias"),
    }
    if published.projector != "mlp":
        block["projector"] = published.projector
    if published.projector == "pixel_shuffle":
        encoder["downscale"] = config.integer("scale_factor")
    elif published.projector == "average_pool":
        encoder["downscale"] = _read_pooling(config, encoder)
        block["projector_norm_eps"] = encoder["eps"]
    if published.bidirectional:
        block["bidirectional_pictures"] = True
    if layout.scales_pictures and "embedding_scale" in text:
        block["feature_scale"] = text["embedding_scale"]
    if "projector_layernorm_eps" in published.defaults:
        block["projector_norm_eps"] = config.number("projector_layernorm_eps", low=0.0, high=1.0)
    vocab_size = text["vocab_size"]
    assert isinstance(vocab_size, int)
    if config.integer(token, low=0) >= vocab_size:
        raise config.refuse(token, f"an id of the vocabulary, below {vocab_size}")
    return VisionModel(
        block, text, encoder, layout, text_fields, num_layers, layers_used, published
    )


def read_language_model(
    path: Path, values: Mapping[str, JSON], published: VisionLayout
) -> tuple[TextLayout, Fields, dict[str, JSON]]:
    """The layout of the language model inside, its part of config.json, and its canonical ``model`` block.

    Args:
        path: The path of config.json.
        values: What it holds.
        published: The row of its kind.

    Raises:
        ModelError: naming the field that is missing, impossible or not supported.
    """
    refuse_quantized(path, values)
    return _read_text(Fields(path, values, published.defaults), published)


def _read_text(
    config: Fields, published: VisionLayout
) -> tuple[TextLayout, Fields, dict[str, JSON]]:
    values = config.get("text_config")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise config.refuse("text_config", "an object")
    values = {"model_type": published.text, **values}
    if config.boolean("tie_word_embeddings"):
        values["tie_word_embeddings"] = True
    layout = find_layout(config.path, values)
    defaults = {**layout.defaults, **_TEXT_SIZES.get(layout.model_type, {})}
    layout = replace(layout, defaults=defaults)
    fields = Fields(config.path, values, defaults, "text_config")
    if published.texts and layout.model_type not in published.texts:
        raise fields.refuse("model_type", " or ".join(published.texts))
    text = read_model(config.path, values, layout)
    for name in _OF_LOGITS:
        text.pop(name, None)
    return layout, fields, text


def _read_encoder(
    config: Fields, published: VisionLayout
) -> tuple[dict[str, JSON], EncoderLayout, int]:
    """The canonical encoder, its kind, and how many of its layers are used."""
    values = config.get("vision_config")
    if values is None:
        values = dict(published.encoder)
    if not isinstance(values, dict):
        raise config.refuse("vision_config", "an object")
    known = {kind.model_type: kind for kind in published.encoders}
    named = Fields(config.path, values, block="vision_config")
    name = named.get("model_type")
    if name is not None and (not isinstance(name, str) or name not in known):
        raise named.refuse("model_type", " or ".join(known))
    kind = published.encoders[0] if name is None else known[str(name)]
    fields = Fields(config.path, values, kind.defaults, "vision_config")
    if fields.get("num_channels") not in (None, 3):
        raise fields.refuse("num_channels", "3")
    layers = fields.integer("num_hidden_layers", high=512)
    feature, layers_used = _read_feature_layer(config, layers)
    block: dict[str, JSON] = {
        "image_size": fields.integer("image_size"),
        "patch_size": fields.integer("patch_size"),
        "width": fields.integer("hidden_size"),
        "num_layers": layers,
        "num_heads": fields.integer("num_attention_heads"),
        "mlp_dim": fields.integer("intermediate_size"),
        "activation": _ACTIVATIONS[_require(fields, "hidden_act", tuple(_ACTIVATIONS))],
        "eps": fields.number("layer_norm_eps", low=0.0, high=1.0),
        "feature_layer": feature,
        **kind.switches,
    }
    return block, kind, layers_used


def _read_feature_layer(config: Fields, layers: int) -> tuple[JSON, int]:
    """The layer or layers whose output is used, and how many layers that takes."""
    feature = config.get("vision_feature_layer")
    several = feature if isinstance(feature, list) else [feature]
    numbers = [layer for layer in several if is_integer(layer, -layers - 1, layers)]
    if not several or len(several) > layers + 1 or len(numbers) != len(several):
        expected = f"a layer or a list of layers, from {-layers - 1} to {layers}"
        raise config.refuse("vision_feature_layer", expected)
    used = max(layer + (layers + 1 if layer < 0 else 0) for layer in numbers)
    return feature if len(several) > 1 else numbers[0], used


def _read_pooling(config: Fields, encoder: Mapping[str, JSON]) -> int:
    """The side of the squares of patches that become one position."""
    image_size, patch_size = encoder["image_size"], encoder["patch_size"]
    assert isinstance(image_size, int) and isinstance(patch_size, int)
    name, patches = "mm_tokens_per_image", image_size // patch_size
    side = math.isqrt(config.integer(name))
    if side**2 != config.integer(name) or patches % side:
        raise config.refuse(name, f"the square of a divisor of {patches} patches a side")
    return patches // side


def _read_max_tiles(config: Fields) -> int:
    """How many tiles' worth of features a picture may have."""
    name = "vision_aspect_ratio"
    found = re.fullmatch(r"anyres_max_([1-9]\d?)", str(config.get(name)))
    if found is None:
        raise config.refuse(name, "anyres_max_1 to anyres_max_99")
    return int(found[1])


def _require(fields: Fields, name: str, values: tuple[str, ...]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or value not in values:
        raise fields.refuse(name, " or ".join(values))
    return value
