"""Models that are not in Hugging Face's layout, or not as they were trained: named as what they are."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import shown

_OTHER_LAYOUT = "use the version of the model in Hugging Face's layout: config.json and safetensors"
_OF_A_REPOSITORY = "download one of its .gguf files, and give the path of that"
_SHARD = re.compile(r"((?:model|pytorch_model)(?:\.[\w.]+)?)-\d{5,6}-of-\d{5,6}\.(safetensors|bin)")

# Pattern of a file's name → what a folder that holds such a file is said to hold, and what to do. The first
# that fits any file counts.
_FORMATS: tuple[tuple[str, str, str], ...] = (
    (
        r"adapter_config\.json|adapter_model\.(safetensors|bin)",
        "an adapter (LoRA or the like), which changes another model and is none itself",
        "merge it into that model (PEFT's merge_and_unload), save the result, and use that",
    ),
    (r"(?!.*mmproj).+\.gguf", "a model in GGUF, the format of llama.cpp", _OF_A_REPOSITORY),
    (r"ggml-.+\.bin|.+\.ggml", "a model in GGML, an old format of llama.cpp", _OTHER_LAYOUT),
    (
        r"consolidated\.\d+\.pth",
        "a model in Meta's original format",
        "use the version whose name ends in -hf, or convert it with transformers' "
        "convert_llama_weights_to_hf.py",
    ),
    (
        r"consolidated.*\.safetensors",
        "a model in Mistral's original format",
        "use the files of the same repository that are in Hugging Face's layout: config.json, "
        "model-*.safetensors and tokenizer.json",
    ),
    (
        r"model_index\.json",
        "a pipeline that makes pictures (Diffusers)",
        "use a language model",
    ),
    (r"(weights.*|model.*)\.npz", "a model in an old format of MLX", _OTHER_LAYOUT),
    (r"flax_model.*\.msgpack", "a model in Flax's format", _OTHER_LAYOUT),
    (r"tf_model.*\.h5|saved_model\.pb", "a model in TensorFlow's format", _OTHER_LAYOUT),
    (r".+\.onnx", "a model in ONNX", _OTHER_LAYOUT),
    (r"openvino_model.*\.xml", "a model in OpenVINO's format", _OTHER_LAYOUT),
    (r".+\.mlmodelc?|.+\.mlpackage", "a model in Core ML's format", _OTHER_LAYOUT),
    (
        r"(?!optimizer|scheduler|rng_state).+\.(pth|pt|ckpt)",
        "weights that PyTorch pickled for a program of its own",
        _OTHER_LAYOUT,
    ),
)


def refuse_layout(root: Path | str, names: Collection[str]) -> None:
    """Refuse a folder without config.json, or without weights, as what it is, if that can be told.

    Args:
        root: The folder, or the repository, for messages.
        names: The names of the files and folders in it.

    Raises:
        ModelError: naming the format, the file that shows it, and the way out.
    """
    ordered = sorted(names)
    shard = next((match for match in map(_SHARD.fullmatch, ordered) if match), None)
    if shard is not None and "config.json" in names:
        index = f"{shard[1]}.{shard[2]}.index.json"
        reason = f"holds {shown(shard[0])}, but no {index}, which says what is in each such file"
        raise ModelError(str(root), reason, "get the index from where the weights came from")
    if {"blobs", "snapshots"} <= set(names):
        reason = "is a model's folder in Hugging Face's cache, which holds several versions"
        remedy = "give the folder of one in its snapshots/, or the model's id, owner/name"
        raise ModelError(str(root), reason, remedy)
    for pattern, what, remedy in _FORMATS:
        fits = re.compile(pattern, re.IGNORECASE).fullmatch
        found = next((name for name in ordered if fits(os.path.basename(name))), None)
        if found is not None:
            raise ModelError(str(root), f"holds {what} ({shown(found)})", remedy)


def names_in(root: Path) -> list[str]:
    """Names of what is in a folder; none if it cannot be read."""
    try:
        return os.listdir(root)
    except OSError:
        return []


def describe_file(name: str) -> tuple[str, str] | None:
    """What is wrong with a file in the place of a folder, and what to do; None if its name does not tell."""
    base = os.path.basename(name)
    for pattern, what, remedy in _FORMATS:
        if re.fullmatch(pattern, base, re.IGNORECASE):
            return f"is {what}, which lolama does not read", remedy
    return None


def refuse_quantized(path: Path, values: Mapping[str, JSON]) -> None:
    """Refuse a config.json whose weights were quantized by another program.

    Raises:
        ModelError: naming the program, as far as the file does.
    """
    block = values.get("quantization_config")
    if block is not None:
        method = block.get("quant_method") if isinstance(block, dict) else None
        reason = f"the weights are quantized by another program (quant_method {shown(method)})"
        raise ModelError(str(path), reason, "use the unquantized model")
    block = values.get("quantization")
    if block is not None:
        bits = block.get("bits") if isinstance(block, dict) else None
        reason = f"the weights are quantized by MLX ({shown(bits)} bits)"
        raise ModelError(
            str(path), reason, "use the unquantized model; `quantize=True` makes it int8 here"
        )
