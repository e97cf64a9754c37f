"""Tiny random LLaVA models of transformers, the same weights in ours, and pictures to show them."""

from __future__ import annotations

import random
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lolama_core import Llama, LlamaConfig
from lolama_vision import LLaVA, Preprocessing, VisionConfig, VLMConfig
from lolama_vision.picture_marks import PictureMarks

VOCAB, IMAGE_TOKEN, SIDE, PATCH = 96, 90, 56, 14
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]

TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def randomize(model: Any, seed: int = 7) -> Any:
    """Weights that no two parts have in common, norms and biases included."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            around = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            parameter.copy_(torch.randn_like(parameter) * 0.1 + around)
    return model.eval()


def reference_clip(**changes: Any) -> Any:
    """transformers' CLIP vision tower."""
    import transformers

    config = transformers.CLIPVisionConfig(**{**VISION, **changes})
    return randomize(transformers.CLIPVisionModel(config))


def reference_siglip(**changes: Any) -> Any:
    """transformers' SigLIP vision tower."""
    import transformers

    config = transformers.SiglipVisionConfig(**{**VISION, **changes})
    return randomize(transformers.SiglipVisionModel(config))


def reference_llava(
    kind: str = "Llava", text: str = "Llama", encoder: str = "CLIP", **changes: Any
) -> Any:
    """transformers' LLaVA or one of its kin, by the names of their classes."""
    import transformers

    window = {"sliding_window": None} if text == "Mistral" else {}
    sizes = {**window, **TEXT, **changes.pop("text_changes", {})}
    settings = {
        "vision_config": getattr(transformers, f"{encoder}VisionConfig")(**VISION),
        "text_config": getattr(transformers, f"{text}Config")(**sizes),
        "image_token_index": IMAGE_TOKEN,
        "image_seq_length": (SIDE // PATCH) ** 2,
        **changes,
    }
    if encoder == "Siglip":
        settings["vision_feature_select_strategy"] = "full"
    if kind in ("LlavaNext", "LlavaOnevision"):
        settings["image_grid_pinpoints"] = PINPOINTS
    config = getattr(transformers, f"{kind}Config")(**settings)
    return randomize(getattr(transformers, f"{kind}ForConditionalGeneration")(config))


def vision_config(**changes: Any) -> VisionConfig:
    """Ours for `VISION`."""
    sizes: dict[str, Any] = {
        "image_size": SIDE,
        "patch_size": PATCH,
        "width": 32,
        "num_layers": 4,
        "num_heads": 4,
        "mlp_dim": 72,
    }
    return VisionConfig(**{**sizes, **changes})


SIGLIP: dict[str, Any] = {
    "activation": "gelu_tanh",
    "eps": 1e-6,
    "class_token": False,
    "patch_bias": True,
    "pre_norm": False,
}
"""Ours for what SigLIP does in another way than CLIP."""


def tiled(max_tiles: int | None = None) -> Preprocessing:
    pinpoints = tuple((h, w) for h, w in PINPOINTS)
    return Preprocessing(mode="tiles", pinpoints=pinpoints, max_tiles=max_tiles)


MARKS = PictureMarks(
    around=(80,),
    whole=(81,),
    tiles=tuple(tuple((20 + 4 * row + column,) for column in range(4)) for row in range(4)),
    row_end=(82,),
    rows_end=(83, 84),
)
"""The ids around tiles of the tiny Idefics3; one text of two ids."""


def reference_idefics3(kind: str = "Idefics3", side: int = SIDE, scale: int = 2) -> Any:
    """transformers' Idefics3 or SmolVLM."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vision_config={**VISION, "image_size": side},
        text_config=transformers.LlamaConfig(**{**TEXT, "max_position_embeddings": 1024}),
        image_token_id=IMAGE_TOKEN,
        scale_factor=scale,
    )
    return randomize(getattr(transformers, f"{kind}ForConditionalGeneration")(config))


def split(longest_edge: int = 4 * SIDE) -> Preprocessing:
    half = (0.5, 0.5, 0.5)
    return Preprocessing(
        mode="split", longest_edge=longest_edge, marks=MARKS, mean=half, std=half, resample=1
    )


def ours_of_idefics3(theirs: Any, preprocessing: Preprocessing | None = None) -> LLaVA:
    """Our model with the weights of transformers' Idefics3 or SmolVLM."""
    sizes = llama_config(theirs.config.text_config)
    config = VLMConfig(
        vision_config=vision_config(
            **{**SIGLIP, "feature_layer": -1, "post_norm": True, "bucket_positions": True},
            image_size=theirs.config.vision_config.image_size,
            downscale=theirs.config.scale_factor,
            preprocessing=preprocessing or split(),
        ),
        text_config=sizes.to_json(),
        image_token_id=IMAGE_TOKEN,
        projector="pixel_shuffle",
    )
    model = LLaVA(config, Llama(sizes))
    copy_clip(theirs.model.vision_model, model.vision_tower)
    projection = theirs.model.connector.modality_projection.proj.weight
    model.projector.load_state_dict({"linear.weight": projection})
    copy_text(theirs.model.text_model, theirs.lm_head, model)
    return model.eval().requires_grad_(False)


def clip_name(published: str) -> str:
    """Our name of a tensor of CLIP, spelled out here once more so that a wrong table shows."""
    name = published.removeprefix("vision_model.")
    for theirs, ours in [
        ("embeddings.patch_embedding", "patch_embedding"),
        ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.position_embedding.weight", "position_embedding"),
        ("pre_layrnorm", "pre_norm"),
        ("encoder.layers", "layers"),
        ("self_attn.out_proj", "attention.o_proj"),
        ("self_attn", "attention"),
        ("layer_norm1", "attention_norm"),
        ("layer_norm2", "ffn_norm"),
        ("mlp", "feed_forward"),
        ("post_layernorm", "post_norm"),
    ]:
        name = name.replace(theirs, ours)
    return name


def text_name(published: str) -> str:
    name = published.removeprefix("model.")
    for theirs, ours in [
        ("self_attn", "attention"),
        ("mlp.gate_proj", "feed_forward.w_gate"),
        ("mlp.up_proj", "feed_forward.w_up"),
        ("mlp.down_proj", "feed_forward.w_down"),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ]:
        name = name.replace(theirs, ours)
    return name


def copy_clip(theirs: Any, ours: Any) -> None:
    """The weights of transformers' CLIP into ours; layers that ours lacks are left out."""
    named = {clip_name(key): tensor for key, tensor in theirs.state_dict().items()}
    ours.load_state_dict({key: named[key] for key in ours.state_dict()})


def llama_config(text: Any) -> LlamaConfig:
    """Ours for transformers' configuration of a language model."""
    return LlamaConfig(
        vocab_size=text.vocab_size,
        d_model=text.hidden_size,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads,
        num_layers=text.num_hidden_layers,
        hidden_dim=text.intermediate_size,
        max_seq_len=text.max_position_embeddings,
        eps=text.rms_norm_eps,
        rope_base=text.rope_parameters["rope_theta"],
        sliding_window=getattr(text, "sliding_window", None),
        attention_bias="qkv" if text.model_type == "qwen2" else False,
    )


def copy_text(theirs: Any, head: Any, ours: LLaVA) -> None:
    """The weights of transformers' language model into ours."""
    state = {text_name(key): tensor for key, tensor in theirs.state_dict().items()}
    ours.language_model.load_state_dict(state | {"lm_head.weight": head.weight})


def ours_of(theirs: Any, **vision_changes: Any) -> LLaVA:
    """Our model with the weights of transformers' LLaVA."""
    is_next = hasattr(theirs.model, "image_newline")
    sizes = llama_config(theirs.config.text_config)
    if is_next:
        ratio = getattr(theirs.config, "vision_aspect_ratio", None)
        settings = tiled(int(ratio.removeprefix("anyres_max_")) if ratio else None)
        vision_changes = {"preprocessing": settings, **vision_changes}
    if theirs.config.vision_config.model_type == "siglip_vision_model":
        vision_changes = {**SIGLIP, **vision_changes}
    vision_changes = {"feature_layer": theirs.config.vision_feature_layer, **vision_changes}
    config = VLMConfig(
        vision_config=vision_config(**vision_changes),
        text_config=sizes.to_json(),
        image_token_id=IMAGE_TOKEN,
        projector_norm_eps=getattr(theirs.config, "projector_layernorm_eps", None),
    )
    model = LLaVA(config, Llama(sizes))
    copy_clip(theirs.model.vision_tower, model.vision_tower)
    projector = {
        key.replace("projector_layernorm", "norm"): tensor
        for key, tensor in theirs.model.multi_modal_projector.state_dict().items()
    }
    model.projector.load_state_dict(
        projector | ({"image_newline": theirs.model.image_newline} if is_next else {})
    )
    copy_text(theirs.model.language_model, theirs.lm_head, model)
    return model.eval().requires_grad_(False)


def random_picture(rng: random.Random, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise over a gradient: every pixel matters, and large areas differ."""
    coarse = Image.frombytes("RGB", (5, 4), rng.randbytes(60)).resize((width, height))
    noise = Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))
    picture = Image.blend(coarse, noise, 0.4)
    if mode == "RGB":
        return picture
    if mode in ("RGBA", "LA"):
        alpha = Image.frombytes("L", (width, height), rng.randbytes(width * height))
        picture.putalpha(alpha)
    return picture.convert(mode)


def pixels(*pictures: Image.Image, config: VisionConfig | None = None) -> Any:
    from lolama_vision import CLIPImageProcessor

    return CLIPImageProcessor(config or vision_config()).preprocess(list(pictures))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
