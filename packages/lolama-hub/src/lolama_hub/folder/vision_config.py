"""config.json and preprocessor_config.json of a vision model → the canonical ``model`` block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.files import Folder
from lolama_hub.folder.layouts import TextLayout
from lolama_hub.folder.other_formats import refuse_quantized
from lolama_hub.folder.text_config import find_layout, read_model

VISION_TYPES = ("llava", "llava_next")
PINPOINTS: list[JSON] = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]

# transformers' LlavaConfig: what it assumes of the model, and of the encoder's block if there is none.
_DEFAULTS: dict[str, JSON] = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
    "image_token_index": 32000,
    "tie_word_embeddings": False,
    "image_grid_pinpoints": PINPOINTS,
}
_VIT_L: dict[str, JSON] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_CLIP_DEFAULTS: dict[str, JSON] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
# A published text_config leaves sizes out that are transformers' defaults (llava-1.5-7b-hf leaves out all).
_TEXT_SIZES: dict[str, dict[str, JSON]] = {
    "llama": {"intermediate_size": 11008},
    "mistral": {"intermediate_size": 14336},
    "qwen2": {"intermediate_size": 22016, "vocab_size": 151936},
}
_COMMON_SIZES: dict[str, JSON] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_PROCESSORS = ("CLIPImageProcessor", "LlavaImageProcessor", "LlavaNextImageProcessor")


@dataclass(frozen=True)
class VisionModel:
    """What the configuration of a vision model says.

    Attributes:
        block: The canonical ``model`` block.
        text: Its ``text_config``, which tied embeddings found later may still change.
        layout: The layout of the language model.
        text_fields: Its part of config.json.
        num_layers: The encoder's number of layers, as published.
        layers_used: How many of them the features need.
        tiled: Whether it is a LLaVA-NeXT.
    """

    block: dict[str, JSON]
    text: dict[str, JSON]
    layout: TextLayout
    text_fields: Fields
    num_layers: int
    layers_used: int
    tiled: bool


def read_vision_model(folder: Folder | None, path: Path, values: Mapping[str, JSON]) -> VisionModel:
    """Read the configuration of a ``llava`` or ``llava_next`` folder.

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
    config = Fields(path, values, _DEFAULTS)
    tiled = values.get("model_type") == "llava_next"
    layout, text_fields, text = _read_text(config)
    vision, num_layers, layers_used = _read_clip(config)
    _require(config, "projector_hidden_act", ("gelu",))
    strategy = _require(config, "vision_feature_select_strategy", ("default", "full"))
    pinpoints = config.get("image_grid_pinpoints") or PINPOINTS
    image_size = vision["image_size"]
    assert isinstance(image_size, int)
    vision |= {
        "keep_class_token": strategy == "full",
        "preprocessing": read_preprocessing(folder, image_size, pinpoints if tiled else None),
    }
    token = "image_token_id" if "image_token_id" in values else "image_token_index"
    block: dict[str, JSON] = {
        "vision_config": vision,
        "text_config": text,
        "image_token_id": config.integer(token, low=0),
        "projector_bias": config.boolean("multimodal_projector_bias"),
    }
    vocab_size = text["vocab_size"]
    assert isinstance(vocab_size, int)
    if config.integer(token, low=0) >= vocab_size:
        raise config.refuse(token, f"an id of the vocabulary, below {vocab_size}")
    return VisionModel(block, text, layout, text_fields, num_layers, layers_used, tiled)


def _read_text(config: Fields) -> tuple[TextLayout, Fields, dict[str, JSON]]:
    values = config.get("text_config")
    if values is None:
        values = {"model_type": "llama"}
    if not isinstance(values, dict):
        raise config.refuse("text_config", "an object")
    values = {"model_type": "llama", **values}
    if config.boolean("tie_word_embeddings"):
        values["tie_word_embeddings"] = True
    layout = find_layout(config.path, values)
    defaults = {**layout.defaults, **_COMMON_SIZES, **_TEXT_SIZES[layout.model_type]}
    layout = replace(layout, defaults=defaults)
    fields = Fields(config.path, values, defaults, "text_config")
    return layout, fields, read_model(config.path, values, layout)


def _read_clip(config: Fields) -> tuple[dict[str, JSON], int, int]:
    """The canonical encoder, its layers as published, and how many are used."""
    values = config.get("vision_config")
    if values is None:
        values = _VIT_L
    if not isinstance(values, dict):
        raise config.refuse("vision_config", "an object")
    clip = Fields(config.path, values, _CLIP_DEFAULTS, "vision_config")
    if clip.get("model_type") not in (None, "clip_vision_model"):
        raise clip.refuse("model_type", "clip_vision_model")
    if clip.get("num_channels") not in (None, 3):
        raise clip.refuse("num_channels", "3")
    activation = _require(clip, "hidden_act", ("quick_gelu", "gelu"))
    layers = clip.integer("num_hidden_layers", high=512)
    feature = config.get("vision_feature_layer")
    if isinstance(feature, list) and len(feature) == 1:
        [feature] = feature
    if not is_integer(feature, -layers - 1, layers):
        raise config.refuse("vision_feature_layer", f"one layer, from {-layers - 1} to {layers}")
    block: dict[str, JSON] = {
        "image_size": clip.integer("image_size"),
        "patch_size": clip.integer("patch_size"),
        "width": clip.integer("hidden_size"),
        "num_layers": layers,
        "num_heads": clip.integer("num_attention_heads"),
        "mlp_dim": clip.integer("intermediate_size"),
        "activation": activation,
        "eps": clip.number("layer_norm_eps", low=0.0, high=1.0),
        "feature_layer": feature,
    }
    return block, layers, feature + (layers + 1 if feature < 0 else 0)


def read_preprocessing(folder: Folder | None, image_size: int, pinpoints: JSON) -> dict[str, JSON]:
    """The canonical ``preprocessing`` block: preprocessor_config.json, or its place in processor_config.json.

    Args:
        folder: The model's folder; None for the defaults.
        image_size: The side of the encoder's input, in pixels.
        pinpoints: config.json's resolutions for tiles; None for a model without tiles.

    Raises:
        ModelError: for a step that is left out or of another kind, naming its field.
    """
    fields = _processor_fields(folder, image_size)
    kind = fields.get("image_processor_type")
    if kind is not None and str(kind).removesuffix("Fast").removesuffix("Pil") not in _PROCESSORS:
        raise fields.refuse("image_processor_type", " or ".join(_PROCESSORS))
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not fields.boolean(step):
            raise fields.refuse(step, "true")
    crop = fields.get("crop_size")
    sides = (
        [crop] if isinstance(crop, int) else list(crop.values()) if isinstance(crop, dict) else []
    )
    if not sides or any(side != image_size for side in sides):
        raise fields.refuse("crop_size", f"{image_size} both ways, as the encoder's image_size")
    edge, stretch = _read_size(fields)
    if pinpoints is not None:
        mode = "tiles"
        pinpoints = fields.get("image_grid_pinpoints") or pinpoints
    else:
        # Only this processor makes a picture square; in CLIP's the same key means something else.
        squares = str(kind).startswith("LlavaImageProcessor") and fields.get("do_pad") is True
        mode = "pad" if squares else "crop"
    return {
        "mode": mode,
        "shortest_edge": edge,
        "stretch": stretch,
        "mean": fields.get("image_mean"),
        "std": fields.get("image_std"),
        "rescale_factor": fields.number("rescale_factor", low=1e-9, high=1e3),
        "resample": fields.integer("resample", low=0, high=5),
        "pinpoints": pinpoints if mode == "tiles" else [],
    }


def _processor_fields(folder: Folder | None, image_size: int) -> Fields:
    defaults: dict[str, JSON] = {
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
        "size": {"shortest_edge": image_size},
        "crop_size": {"height": image_size, "width": image_size},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 1 / 255,
        "resample": 3,
    }
    if folder is None:
        return Fields(Path("preprocessor_config.json"), {}, defaults)
    path = folder.find("preprocessor_config.json")
    if path is not None:
        return Fields(path, folder.json(path.name), defaults)
    where = folder.root / "processor_config.json"
    values = folder.json(where.name).get("image_processor", {})
    if not isinstance(values, dict):
        raise ModelError(str(where), f"image_processor is {shown(values)}, expected an object", "")
    return Fields(where, values, defaults, "image_processor")


def _read_size(fields: Fields) -> tuple[int, bool]:
    """Pixels, and whether both sides are given."""
    size = fields.get("size")
    if is_integer(size):
        return fields.integer("size"), False
    if isinstance(size, dict):
        inner = Fields(fields.path, size, block="size")
        if size.get("shortest_edge") is not None and size.get("longest_edge") is None:
            return inner.integer("shortest_edge"), False
        if size.get("height") is not None and size.get("height") == size.get("width"):
            return inner.integer("height"), True
    raise fields.refuse("size", "a shortest_edge, or an equal height and width")


def _require(fields: Fields, name: str, values: tuple[str, ...]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or value not in values:
        raise fields.refuse(name, " or ".join(values))
    return value
