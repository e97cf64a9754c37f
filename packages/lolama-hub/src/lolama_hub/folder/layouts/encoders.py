"""The picture encoders inside published vision models: their switches, defaults and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from lolama_core.protocols.types import JSON

TENSORS = {
    **{
        f"patch_embedding.{part}": f"embeddings.patch_embedding.{part}"
        for part in ("weight", "bias")
    },
    "class_embedding": "embeddings.class_embedding",
    "position_embedding": "embeddings.position_embedding.weight",
    **{f"pre_norm.{part}": f"pre_layrnorm.{part}" for part in ("weight", "bias")},  # sic
    **{
        f"layers.{{n}}.{ours}.{part}": f"encoder.layers.{{n}}.{theirs}.{part}"
        for part in ("weight", "bias")
        for ours, theirs in (
            ("attention_norm", "layer_norm1"),
            ("attention.q_proj", "self_attn.q_proj"),
            ("attention.k_proj", "self_attn.k_proj"),
            ("attention.v_proj", "self_attn.v_proj"),
            ("attention.o_proj", "self_attn.out_proj"),
            ("ffn_norm", "layer_norm2"),
            ("feed_forward.fc1", "mlp.fc1"),
            ("feed_forward.fc2", "mlp.fc2"),
        )
    },
    **{f"post_norm.{part}": f"post_layernorm.{part}" for part in ("weight", "bias")},
}
"""Canonical → published name inside the encoder, ``{n}`` being the layer."""

_SWITCHES: dict[str, tuple[str, bool]] = {
    "patch_embedding.bias": ("patch_bias", False),
    "class_embedding": ("class_token", True),
    "pre_norm.": ("pre_norm", True),
    "post_norm.": ("post_norm", False),
}
"""Start of a canonical name → the field that says whether there is such a tensor, and its default."""

HEAD = "head."
"""SigLIP's pooling head, which no model with a language model uses."""


@dataclass(frozen=True, kw_only=True)
class EncoderLayout:
    """How one kind of encoder is published.

    Args:
        model_type: Its name in ``vision_config``.
        defaults: What transformers assumes for keys that are left out.
        switches: Canonical fields that the kind decides.
        processor: The image processor of a folder that names none.
    """

    model_type: str
    defaults: Mapping[str, JSON]
    switches: Mapping[str, JSON] = field(default_factory=dict)
    processor: str


CLIP = EncoderLayout(
    model_type="clip_vision_model",
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    processor="CLIPImageProcessor",
)
SIGLIP = EncoderLayout(
    model_type="siglip_vision_model",
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    switches={"class_token": False, "patch_bias": True, "pre_norm": False},
    processor="SiglipImageProcessor",
)
SIGLIP_GEMMA3 = replace(
    SIGLIP,
    switches={**SIGLIP.switches, "post_norm": True},
    processor="Gemma3ImageProcessor",
)

IDEFICS3 = EncoderLayout(
    model_type="idefics3_vision",
    defaults={
        **SIGLIP.defaults,
        "hidden_size": 1152,
        "num_attention_heads": 16,
        "patch_size": 32,
    },
    switches={**SIGLIP.switches, "post_norm": True, "bucket_positions": True},
    processor="Idefics3ImageProcessor",
)
SMOLVLM = replace(IDEFICS3, model_type="smolvlm_vision", processor="SmolVLMImageProcessor")
# Files of earlier versions of transformers call the encoder what the model is called.
IDEFICS3_BY_MODEL = replace(IDEFICS3, model_type="idefics3")
SMOLVLM_BY_MODEL = replace(SMOLVLM, model_type="smolvlm")


def encoder_names(encoder: Mapping[str, JSON], layers: int) -> Iterator[tuple[str, str]]:
    """Canonical and published name of the tensors of a canonical encoder with its first ``layers`` layers."""
    for ours, theirs in TENSORS.items():
        if "{n}" in ours:
            for layer in range(layers):
                yield ours.format(n=layer), theirs.format(n=layer)
        elif _has(ours, encoder):
            yield ours, theirs


def unused_names(encoder: Mapping[str, JSON], first: int, layers: int) -> Iterator[str]:
    """Published names that a whole encoder has behind its feature layer, the one ahead of layer ``first``."""
    for ours, theirs in TENSORS.items():
        if "{n}" in ours:
            for layer in range(first, layers):
                yield theirs.format(n=layer)
        elif ours.startswith("post_norm.") and not _has(ours, encoder):
            yield theirs


def _has(name: str, encoder: Mapping[str, JSON]) -> bool:
    """Whether an encoder has the tensor of this row."""
    for start, (switch, default) in _SWITCHES.items():
        if name.startswith(start):
            return bool(encoder.get(switch, default))
    return True
