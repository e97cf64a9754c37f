"""preprocessor_config.json of a vision model → the canonical ``preprocessing`` block."""

from __future__ import annotations

from pathlib import Path

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.folder.files import Folder

_CLIP: dict[str, JSON] = {
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SIGLIP: dict[str, JSON] = {
    "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_SPLIT: dict[str, JSON] = {"do_image_splitting": True, "resample": 1}
_PROCESSORS = {
    "CLIPImageProcessor": _CLIP,
    "LlavaImageProcessor": _CLIP,
    "LlavaNextImageProcessor": _CLIP,
    "SiglipImageProcessor": _SIGLIP,
    "LlavaOnevisionImageProcessor": {**_CLIP, "do_center_crop": False},
    "Gemma3ImageProcessor": {**_SIGLIP, "resample": 2, "do_pan_and_scan": False},
    "Idefics3ImageProcessor": {**_SIGLIP, **_SPLIT},
    "SmolVLMImageProcessor": {**_SIGLIP, **_SPLIT},
}
"""An image processor of transformers → what it does where its file does not say."""


def read_preprocessing(
    folder: Folder | None, image_size: int, pinpoints: JSON, usual: str = "CLIPImageProcessor"
) -> dict[str, JSON]:
    """The canonical ``preprocessing`` block: preprocessor_config.json, or its place in processor_config.json.

    Args:
        folder: The model's folder; None for the defaults.
        image_size: The side of the encoder's input, in pixels.
        pinpoints: config.json's resolutions for tiles; None for a model without tiles.
        usual: The image processor that is meant where the file names none.

    Raises:
        ModelError: for a step that is left out or of another kind, naming its field.
    """
    fields, kind = _processor_fields(folder, image_size, usual)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not fields.boolean(step):
            raise fields.refuse(step, "true")
    if fields.get("do_pan_and_scan"):
        raise fields.refuse("do_pan_and_scan", "false: a picture is shown only as a whole")
    common: dict[str, JSON] = {
        "mean": fields.get("image_mean"),
        "std": fields.get("image_std"),
        "rescale_factor": fields.number("rescale_factor", low=1e-9, high=1e3),
        "resample": fields.integer("resample", low=0, high=5),
    }
    if "do_image_splitting" in _PROCESSORS[kind]:
        return {"mode": "split", "longest_edge": _read_split(fields, image_size), **common}
    edge, stretch = _read_size(fields)
    _check_crop(fields, image_size, exact=stretch and edge == image_size)
    if pinpoints is not None:
        mode = "tiles"
        pinpoints = fields.get("image_grid_pinpoints") or pinpoints
    else:
        # Only this processor makes a picture square; in CLIP's the same key means something else.
        squares = kind == "LlavaImageProcessor" and fields.get("do_pad") is True
        mode = "pad" if squares else "crop"
    return {
        "mode": mode,
        "shortest_edge": edge,
        "stretch": stretch,
        **common,
        "pinpoints": pinpoints if mode == "tiles" else [],
    }


def _processor_fields(folder: Folder | None, image_size: int, usual: str) -> tuple[Fields, str]:
    """The file's fields, and which image processor they are for."""
    path, values, block = _processor_file(folder)
    named = Fields(path, values, {"image_processor_type": usual}, block)
    kind = str(named.get("image_processor_type") or usual)
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if kind not in _PROCESSORS:
        raise named.refuse("image_processor_type", " or ".join(_PROCESSORS))
    both: dict[str, JSON] = {"height": image_size, "width": image_size}
    shortest: dict[str, JSON] = {"shortest_edge": image_size}
    defaults: dict[str, JSON] = {
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
        "size": shortest if _PROCESSORS[kind]["do_center_crop"] else both,
        "crop_size": both,
        "rescale_factor": 1 / 255,
        "resample": 3,
        **_PROCESSORS[kind],
    }
    return Fields(path, values, defaults, block), kind


def _processor_file(folder: Folder | None) -> tuple[Path, dict[str, JSON], str]:
    """Where the fields stand, what they are, and the name of their object in the file."""
    alone = "preprocessor_config.json"
    if folder is None:
        return Path(alone), {}, ""
    path = folder.find(alone)
    if path is not None:
        return path, folder.json(path.name), ""
    where = folder.root / "processor_config.json"
    values = folder.json(where.name).get("image_processor", {})
    if not isinstance(values, dict):
        raise ModelError(str(where), f"image_processor is {shown(values)}, expected an object", "")
    return where, values, "image_processor"


def _check_crop(fields: Fields, image_size: int, *, exact: bool) -> None:
    """Refuse what does not end in a square of the encoder's size.

    Args:
        fields: The image processor's.
        image_size: The side of the encoder's input, in pixels.
        exact: Whether resizing alone makes such a square.
    """
    cuts = fields.get("do_center_crop") is not None and fields.boolean("do_center_crop")
    if not cuts:
        if not exact:
            expected = f"true, unless size is {image_size} pixels high and wide"
            raise fields.refuse("do_center_crop", expected)
        return
    crop = fields.get("crop_size")
    sides = (
        [crop] if isinstance(crop, int) else list(crop.values()) if isinstance(crop, dict) else []
    )
    if not sides or any(side != image_size for side in sides):
        raise fields.refuse("crop_size", f"{image_size} both ways, as the encoder's image_size")


def _read_split(fields: Fields, image_size: int) -> int:
    """Pixels that the longer side of a picture becomes before it is cut into tiles of the encoder's size."""
    if not fields.boolean("do_image_splitting"):
        raise fields.refuse("do_image_splitting", "true")
    sizes: dict[str, JSON] = {"max_image_size": image_size, "size": 4 * image_size}
    for name, usual in sizes.items():
        found = fields.get(name) if name in fields else {"longest_edge": usual}
        if not isinstance(found, dict) or found.keys() != {"longest_edge"}:
            raise fields.refuse(name, "a longest_edge")
        sizes[name] = found["longest_edge"]
    if sizes["max_image_size"] != image_size:
        raise fields.refuse("max_image_size", f"a longest_edge of {image_size}, as image_size")
    longest = sizes["size"]
    if not is_integer(longest, 1, min(4096, 8 * image_size)):
        raise fields.refuse("size", f"a longest_edge from 1 to {min(4096, 8 * image_size)}")
    return longest


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
