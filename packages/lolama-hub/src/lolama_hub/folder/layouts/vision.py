"""Vision models, one row each: what their config.json leaves out, and which encoders they have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts import encoders
from lolama_hub.folder.layouts.encoders import CLIP, SIGLIP, EncoderLayout
from lolama_hub.folder.layouts.picture_templates import IDEFICS3_TEMPLATE, VIPLLAVA_TEMPLATE


@dataclass(frozen=True, kw_only=True)
class VisionLayout:
    """How one kind of vision model is published.

    Args:
        model_type: Its name in config.json.
        defaults: What transformers assumes for keys that config.json leaves out.
        encoders: Those that it may have. The first is meant where ``vision_config`` does not say. None:
            pictures are not supported, and the language model inside runs as a text model.
        encoder: What transformers assumes where there is no ``vision_config`` at all.
        text: The ``model_type`` of a language model that does not say its own.
        texts: The types of language models that it may have; empty for all.
        fixed: Keys of config.json that count as these, whatever it says.
        tiled: Whether pictures are cut into tiles at one of several resolutions.
        projector: What stands between encoder and language model, as ``VLMConfig`` calls it.
        template: The chat template of a folder without one that shows pictures; empty for that of the
            language model.
        bidirectional: Whether the positions of a picture see each other. Such a model's processor writes
            line breaks and tokens around them, where a template writes the first of these alone.
    """

    model_type: str
    defaults: Mapping[str, JSON]
    encoders: tuple[EncoderLayout, ...] = ()
    encoder: Mapping[str, JSON] = field(default_factory=dict)
    text: str = "llama"
    texts: Collection[str] = ()
    fixed: Mapping[str, JSON] = field(default_factory=dict)
    tiled: bool = False
    projector: str = "mlp"
    template: str = ""
    bidirectional: bool = False

    @property
    def sees(self) -> bool:
        """Whether pictures are supported."""
        return bool(self.encoders)


_DEFAULTS: dict[str, JSON] = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
    "image_token_index": 32000,
    "tie_word_embeddings": False,
}
_VIT_L: dict[str, JSON] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}

LLAVA = VisionLayout(
    model_type="llava", defaults=_DEFAULTS, encoders=(CLIP, SIGLIP), encoder=_VIT_L
)
LLAVA_NEXT = VisionLayout(
    model_type="llava_next",
    defaults=_DEFAULTS
    | {
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    },
    encoders=(CLIP, SIGLIP),
    encoder=_VIT_L,
    tiled=True,
)
# It never reads a class token, has biases in its projector, and a norm in front of it.
VIPLLAVA = VisionLayout(
    model_type="vipllava",
    defaults=_DEFAULTS
    | {"vision_feature_layer": [-2, -5, -8, -11, 6], "projector_layernorm_eps": 1e-5},
    encoders=(CLIP,),
    encoder=_VIT_L,
    fixed={"vision_feature_select_strategy": "default", "multimodal_projector_bias": True},
    template=VIPLLAVA_TEMPLATE,
)
_SIDES = range(384, 2305, 384)
ONEVISION = VisionLayout(
    model_type="llava_onevision",
    defaults=_DEFAULTS
    | {
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_token_index": 151646,
        "image_grid_pinpoints": [[height, width] for height in _SIDES for width in _SIDES],
        "vision_aspect_ratio": "anyres_max_9",
    },
    encoders=(SIGLIP,),
    encoder={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    text="qwen2",
    tiled=True,
)

IDEFICS3 = VisionLayout(
    model_type="idefics3",
    defaults={"image_token_id": 128257, "scale_factor": 2, "tie_word_embeddings": False},
    encoders=(encoders.IDEFICS3, encoders.IDEFICS3_BY_MODEL),
    fixed={
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": False,
    },
    projector="pixel_shuffle",
    template=IDEFICS3_TEMPLATE,
)
SMOLVLM = replace(
    IDEFICS3,
    model_type="smolvlm",
    encoders=(encoders.SMOLVLM, encoders.SMOLVLM_BY_MODEL, *IDEFICS3.encoders),
)

GEMMA3 = VisionLayout(
    model_type="gemma3",
    defaults={
        "image_token_index": 262144,
        "mm_tokens_per_image": 256,
        "tie_word_embeddings": True,
    },
    encoders=(encoders.SIGLIP_GEMMA3,),
    text="gemma3_text",
    # transformers gives others no pictures: it makes a mask for each kind of layers.
    texts=(
        *("gemma3_text", "gemma2", "vaultgemma", "qwen2", "qwen2_moe", "qwen3"),
        *("exaone4", "ministral", "olmo3", "smollm3"),
    ),
    fixed=IDEFICS3.fixed,
    projector="average_pool",
    bidirectional=True,
)
# Its language model alone.
MISTRAL3 = VisionLayout(
    model_type="mistral3", defaults={"tie_word_embeddings": True}, text="mistral"
)

VISION_LAYOUTS = {
    layout.model_type: layout
    for layout in (
        *(LLAVA, LLAVA_NEXT, VIPLLAVA, ONEVISION, IDEFICS3, SMOLVLM),
        *(GEMMA3, MISTRAL3),
    )
}


def find_vision_layout(values: Mapping[str, JSON]) -> VisionLayout | None:
    """The row for a config.json; None if it is not of a vision model, or says nothing that makes sense."""
    model_type = values.get("model_type")
    return VISION_LAYOUTS.get(model_type) if isinstance(model_type, str) else None
