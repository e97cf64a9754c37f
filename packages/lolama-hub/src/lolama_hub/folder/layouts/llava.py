"""LLaVA and its kin: five ways to call the same tensors, told apart tensor by tensor.

L1, the Hub
    ``language_model.model.*``, ``language_model.lm_head``, ``vision_tower.vision_model.*``,
    ``multi_modal_projector.linear_{1,2}``
L2, transformers 4.52
    ``model.language_model.*``, ``lm_head``, ``model.vision_tower.vision_model.*``,
    ``model.multi_modal_projector.linear_{1,2}``
L3, transformers 5 in memory
    L2 without ``vision_model.``
L4, saved by transformers 5
    L1 without ``vision_model.``
L5, the original
    ``model.*``, ``lm_head``, ``model.vision_tower.vision_tower.vision_model.*``, ``model.mm_projector.{0,2}``
Idefics3 and SmolVLM
    ``model.text_model.*``, ``lm_head``, ``model.vision_model.*``,
    ``model.connector.modality_projection.proj``
Gemma 3
    L1 to L4, with ``multi_modal_projector.mm_{soft_emb_norm.weight,input_projection_weight}``

Each name is brought into one form, that of a text model with ``vision.``, ``projector.`` and
``image_newline`` beside it, and the rest is a single table.
"""

from __future__ import annotations

from collections.abc import Mapping

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts.transforms import Transform

VISION, PROJECTOR, NEWLINE = "vision.", "projector.", "image_newline"

_PROJECTOR_LAYERS = {"0": "linear_1", "2": "linear_2"}
_IDEFICS3 = {
    "text_model.": "model.",
    "vision_model.": VISION,
    "connector.modality_projection.proj.": f"{PROJECTOR}linear.",
}


def common_name(key: str) -> str:
    """A published name of any layout in the one form."""
    _, found, rest = key.rpartition("vision_tower.")
    if found:
        return VISION + rest.removeprefix("vision_model.")
    for theirs, common in _IDEFICS3.items():
        for prefix in ("model.", ""):
            if key.startswith(prefix + theirs):
                return common + key.removeprefix(prefix + theirs)
    for prefix in ("model.", "language_model.model.", "language_model.", ""):
        if key.startswith(f"{prefix}multi_modal_projector."):
            return PROJECTOR + key.removeprefix(f"{prefix}multi_modal_projector.")
        if key.startswith(f"{prefix}mm_projector."):
            layer, _, part = key.removeprefix(f"{prefix}mm_projector.").partition(".")
            return f"{PROJECTOR}{_PROJECTOR_LAYERS.get(layer, layer)}.{part}"
        if key == f"{prefix}{NEWLINE}":
            return NEWLINE
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    return key.removeprefix("language_model.")


def projector_names(model: Mapping[str, JSON], *, newline: bool) -> dict[str, str]:
    """Canonical → common name of what stands between encoder and language model.

    Args:
        model: The canonical ``model`` block.
        newline: Whether rows of tiles end with an embedding of their own.
    """
    if model.get("projector") == "pixel_shuffle":
        return {"projector.linear.weight": f"{PROJECTOR}linear.weight"}
    if model.get("projector") == "average_pool":
        return {
            "projector.norm.weight": f"{PROJECTOR}mm_soft_emb_norm.weight",
            "projector.linear.weight": f"{PROJECTOR}mm_input_projection_weight",
        }
    parts = ("weight", "bias") if model["projector_bias"] else ("weight",)
    names = {
        f"projector.{layer}.{part}": f"{PROJECTOR}{layer}.{part}"
        for layer in ("linear_1", "linear_2")
        for part in parts
    }
    if model.get("projector_norm_eps") is not None:
        for part in ("weight", "bias"):
            names[f"projector.norm.{part}"] = f"{PROJECTOR}projector_layernorm.{part}"
    if newline:
        names[f"projector.{NEWLINE}"] = NEWLINE
    return names


def projector_transforms(
    model: Mapping[str, JSON], names: Mapping[str, str]
) -> dict[str, Transform]:
    """Canonical name → how it is made, for tensors of the projector that are not stored as they are.

    Args:
        model: The canonical ``model`` block.
        names: Canonical name → published name of all tensors.
    """
    if model.get("projector") != "average_pool":
        return {}
    norm, linear = "projector.norm.weight", "projector.linear.weight"
    return {
        norm: Transform(names[norm], offset=1),
        linear: Transform(names[linear], transposed=True),
    }
