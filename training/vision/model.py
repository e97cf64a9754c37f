"""The shape of `demo-vision`, its first weights, and what is trained beside it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from lolama_core import FileCheckpoint, Llama, LlamaConfig, open_checkpoint
from lolama_vision import LLaVA, Preprocessing, VisionConfig, VLMConfig

from .reader import Reader
from .recipe import Recipe
from .tokenizer import VOCAB_SIZE

TEXT = LlamaConfig(
    vocab_size=VOCAB_SIZE,
    d_model=128,
    num_heads=4,
    num_kv_heads=2,
    num_layers=4,
    hidden_dim=384,
    max_seq_len=1024,
    tie_word_embeddings=True,
)
VISION = VisionConfig(
    image_size=96,
    patch_size=16,
    width=128,
    num_layers=5,
    num_heads=4,
    mlp_dim=512,
    feature_layer=-1,
    preprocessing=Preprocessing(mode="pad"),
)


class Trainee(nn.Module):
    """The model, and what is trained beside it.

    Args:
        model: What ships.
    """

    def __init__(self, model: LLaVA) -> None:
        super().__init__()
        self.model = model
        self.reader = Reader(TEXT.d_model)

    def trained(self, recipe: Recipe) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that a recipe trains."""
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if recipe.questions or not name.startswith("model.language_model.")
        ]


def config_of(image_token_id: int) -> VLMConfig:
    return VLMConfig(
        vision_config=VISION, text_config=TEXT.to_json(), image_token_id=image_token_id
    )


def fresh_model(image_token_id: int, seed: int = 0) -> LLaVA:
    """Normal weights; matrices that write to a residual stream are scaled down by depth."""
    model = LLaVA(config_of(image_token_id), Llama(TEXT))
    generator = torch.Generator().manual_seed(seed)
    depth = {"language_model": TEXT.num_layers, "vision_tower": VISION.layers_used, "projector": 1}
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            nn.init.ones_(parameter)
        elif name.endswith(".bias"):
            nn.init.zeros_(parameter)
        else:
            std = 0.02
            if name.endswith(("o_proj.weight", "w_down.weight", "fc2.weight")):
                std /= math.sqrt(2 * depth[name.partition(".")[0]])
            elif "position_embedding" in name or "class_embedding" in name:
                std = 0.5
            elif "patch_embedding" in name:
                std = 1 / math.sqrt(3 * VISION.patch_size**2)
            nn.init.normal_(parameter, std=std, generator=generator)
    return model


def load_weights(model: LLaVA, checkpoint: Path) -> None:
    """Fill in what `build` has saved, in the model's own dtype."""
    tensors = dict(FileCheckpoint(open_checkpoint(checkpoint)).tensors())
    tensors["language_model.lm_head.weight"] = tensors["language_model.embed_tokens.weight"]
    model.load_state_dict(tensors)
