"""What the aliases say of their models follows from the shapes in which these are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core import Llama, LlamaConfig
from lolama_hub import MODELS
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.preprocessor_config import read_preprocessing
from lolama_hub.folder.text_config import read_model
from lolama_hub.folder.vision_config import read_vision_model
from lolama_vision.family import LlavaFamily

SHAPE = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
# What config.json of each says: the type, the five sizes above, the vocabulary, tied embeddings, the rest.
TEXT: dict[str, tuple[str, str, int, bool, dict[str, Any]]] = {
    "tinyllama": ("llama", "2048 5632 22 32 4", 32000, False, {}),
    "open_llama_3b": ("llama", "3200 8640 26 32 32", 32000, False, {}),
    "open_llama_7b": ("llama", "4096 11008 32 32 32", 32000, False, {}),
    "llama7b": ("llama", "4096 11008 32 32 32", 32000, False, {}),
    "gemma3:270m": ("gemma3_text", "640 2048 18 4 1", 262144, True, {"sliding_window": 512}),
    "gemma3:1b": ("gemma3_text", "1152 6912 26 4 1", 262144, True, {"sliding_window": 512}),
    "granite3.1-moe:1b": (
        "granitemoe",
        "1024 512 24 16 8",
        49155,
        True,
        {"num_local_experts": 32, "num_experts_per_tok": 8},
    ),
    "granite3.1-moe:3b": (
        "granitemoe",
        "1536 512 32 24 8",
        49155,
        True,
        {"num_local_experts": 40, "num_experts_per_tok": 8},
    ),
    "granite3.3:2b": ("granite", "2048 8192 40 32 8", 49159, True, {}),
    "granite3.3:8b": ("granite", "4096 12800 40 32 8", 49159, True, {}),
    "llama3.1:8b": ("llama", "4096 14336 32 32 8", 128256, False, {}),
    "llama3.2:1b": ("llama", "2048 8192 16 32 8", 128256, True, {}),
    "llama3.2:3b": ("llama", "3072 8192 28 24 8", 128256, True, {}),
    "ministral3:3b": ("ministral3", "3072 9216 26 32 8", 131072, True, {"head_dim": 128}),
    "olmo3:7b": ("olmo3", "4096 11008 32 32 32", 100278, False, {}),
    "phi4-mini": ("phi3", "3072 8192 32 24 8", 200064, True, {"partial_rotary_factor": 0.75}),
    "qwen2.5:0.5b": ("qwen2", "896 4864 24 14 2", 151936, True, {}),
    "qwen2.5:1.5b": ("qwen2", "1536 8960 28 12 2", 151936, True, {}),
    "qwen2.5:3b": ("qwen2", "2048 11008 36 16 2", 151936, True, {}),
    "qwen2.5:7b": ("qwen2", "3584 18944 28 28 4", 152064, False, {}),
    "qwen3:0.6b": ("qwen3", "1024 3072 28 16 8", 151936, True, {}),
    "qwen3:1.7b": ("qwen3", "2048 6144 28 16 8", 151936, True, {}),
    "qwen3:4b": ("qwen3", "2560 9728 36 32 8", 151936, True, {}),
    "qwen3:8b": ("qwen3", "4096 12288 36 32 8", 151936, False, {}),
    "smollm2:135m": ("llama", "576 1536 30 9 3", 49152, True, {}),
    "smollm2:360m": ("llama", "960 2560 32 15 5", 49152, True, {}),
    "smollm2:1.7b": ("llama", "2048 8192 24 32 32", 49152, True, {}),
    "smollm3:3b": ("smollm3", "2048 11008 36 16 4", 128256, True, {}),
    # The language models of those that see.
    "llava-1.5-7b": ("llama", "4096 11008 32 32 32", 32064, False, {}),
    "llava-med": ("mistral", "4096 14336 32 32 8", 32064, False, {}),
    "gemma3:4b": ("gemma3_text", "2560 10240 34 8 4", 262208, True, {"sliding_window": 1024}),
    "gemma3:12b": ("gemma3_text", "3840 15360 48 16 8", 262208, True, {"sliding_window": 1024}),
    "llava-onevision:0.5b": ("qwen2", "896 4864 24 14 2", 152000, True, {}),
    "llava-onevision:7b": ("qwen2", "3584 18944 28 28 4", 152128, False, {}),
    "smolvlm2:256m": ("llama", "576 1536 30 9 3", 49280, False, {}),
    "smolvlm2:500m": ("llama", "960 2560 32 15 5", 49280, False, {}),
    "smolvlm2:2.2b": ("llama", "2048 8192 24 32 32", 49280, False, {}),
}
CLIP = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096}
CLIP |= {"num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304}
SIGLIP |= {"num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14}
SMOL = {"model_type": "smolvlm_vision", "hidden_size": 768, "intermediate_size": 3072}
SMOL |= {"num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 512, "patch_size": 16}
SO400M = {**SIGLIP, "model_type": "smolvlm_vision", "num_hidden_layers": 27}
GEMMA3 = {**SIGLIP, "num_hidden_layers": 27, "image_size": 896}
ONEVISION = {"image_token_index": 151646, "vision_config": SIGLIP}
# Their type, their encoder, and the rest.
VISION: dict[str, dict[str, Any]] = {
    "llava-1.5-7b": {"model_type": "llava", "vision_config": CLIP},
    "llava-med": {"model_type": "llava", "vision_config": CLIP},
    "gemma3:4b": {"model_type": "gemma3", "vision_config": GEMMA3},
    "gemma3:12b": {"model_type": "gemma3", "vision_config": GEMMA3},
    "llava-onevision:0.5b": {"model_type": "llava_onevision", **ONEVISION},
    "llava-onevision:7b": {"model_type": "llava_onevision", **ONEVISION},
    "smolvlm2:256m": {"scale_factor": 4, "vision_config": SMOL},
    "smolvlm2:500m": {"scale_factor": 4, "vision_config": SMOL},
    "smolvlm2:2.2b": {"scale_factor": 3, "vision_config": SO400M},
}
PLAIN = read_preprocessing(None, 336, None)
IN_FLOAT32 = {"smolvlm2:256m", "smolvlm2:500m", "smolvlm2:2.2b"}
EMBEDDINGS_TWICE = {"qwen3:0.6b", "qwen3:1.7b"}  # in the files, though they are tied
UNUSED = {"ministral3:3b": 420_000_000}  # its encoder of pictures
OTHER_FILES = 40_000_000  # bytes of the largest tokenizer here, and a little


def text_values(alias: str) -> dict[str, Any]:
    model_type, shape, vocabulary, tied, more = TEXT[alias]
    sizes = dict(zip(SHAPE.split(), map(int, shape.split()), strict=True))
    values = {"model_type": model_type, **sizes, "vocab_size": vocabulary, **more}
    return {**values, "tie_word_embeddings": tied}


def weights(alias: str) -> int:
    """The number of a model's parameters."""
    path, values = Path("config.json"), text_values(alias)
    if alias in VISION:
        values = {
            "model_type": "smolvlm",
            "image_token_id": 5,
            **VISION[alias],
            "text_config": values,
        }
        values["tie_word_embeddings"] = values["text_config"]["tie_word_embeddings"]
        found = read_vision_model(None, path, values)
        # Which tiles there are, and what stands around them, changes no weight.
        found.encoder["preprocessing"] = PLAIN
        block = found.block
        model: torch.nn.Module = LlavaFamily().build(block, build_text)
    else:
        model = build_text(read_model(path, values, LAYOUTS[values["model_type"]]))
    return sum(parameter.numel() for parameter in model.parameters())


def build_text(block: Any) -> Llama:
    with torch.device("meta"):
        return Llama(LlamaConfig.from_json(block))


def test_every_alias_is_here() -> None:
    assert set(TEXT) == {model.alias for model in MODELS}
    assert set(VISION) == {model.alias for model in MODELS if model.kind == "vision"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.alias)
def test_parameters_and_size_are_those_of_the_shape(model: Any) -> None:
    count = weights(model.alias)
    number, unit = float(model.parameters[:-1]), {"M": 1e6, "B": 1e9}[model.parameters[-1]]
    # Those that are called 7B have up to 7.6 billion.
    rounding = 0.05 if "." in model.parameters else 0.6
    assert abs(count / unit - number) <= rounding, count
    values = text_values(model.alias)
    stored = count + UNUSED.get(model.alias, 0)
    if model.alias in EMBEDDINGS_TWICE:
        stored += values["vocab_size"] * values["hidden_size"]
    size = stored * (4 if model.alias in IN_FLOAT32 else 2)
    assert 0.994 * size < model.size < 1.006 * size + OTHER_FILES
