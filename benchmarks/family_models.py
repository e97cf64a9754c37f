"""Random models of other families than LLaMA, in the shapes of real ones, for `benchmarks.families`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FamilyShape:
    """What a model is like.

    Attributes:
        config: Its class in transformers.
        gguf: What llama.cpp calls the architecture.
        settings: Fields of the configuration.
    """

    config: str
    gguf: str
    settings: dict[str, Any]


SHAPES = {
    "qwen3_0.6b": FamilyShape(
        "Qwen3Config",
        "qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": True,
        },
    ),
    "gemma3_1b": FamilyShape(
        "Gemma3TextConfig",
        "gemma3",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
            "tie_word_embeddings": True,
        },
    ),
    # Qwen3-30B-A3B with half of its experts, and four of its layers.
    "qwen3_moe": FamilyShape(
        "Qwen3MoeConfig",
        "qwen3moe",
        {
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "num_hidden_layers": 4,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": False,
        },
    ),
}


def write_hugging_face(folder: Path, shape: str) -> None:
    """config.json, model.safetensors in bfloat16, and a tokenizer of numbered words."""
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    asked = SHAPES[shape]
    config = getattr(transformers, asked.config)(**asked.settings, bos_token_id=1, eos_token_id=2)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, parameter in published_weights(model):
        if len(parameter) == parameter.numel():
            # Gemma's norms multiply with 1 + w.
            value = 0.0 if asked.gguf == "gemma3" else 1.0
            weights[name] = torch.full_like(parameter, value, device="cpu", dtype=torch.bfloat16)
        else:
            size = 1.0 if name.endswith("embed_tokens.weight") else parameter.shape[-1] ** -0.5
            random = torch.randn(parameter.shape, generator=generator) * size
            weights[name] = random.bfloat16()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    vocabulary = {f"t{i}": i for i in range(asked.settings["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "t1", "eos_token": "t2", "unk_token": "t0"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def published_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names of published files: each expert has tensors of its own there."""
    for name, parameter in model.named_parameters():
        stem, _, last = name.rpartition(".")
        if not stem.endswith("experts"):
            yield name, parameter
        elif last == "gate_up_proj":
            for expert, both in enumerate(parameter):
                for part, half in zip(("gate_proj", "up_proj"), both.chunk(2), strict=True):
                    yield f"{stem}.{expert}.{part}.weight", half
        else:
            for expert, one in enumerate(parameter):
                yield f"{stem}.{expert}.{last}.weight", one


def write_gguf(path: Path, folder: Path, shape: str, dtype: str) -> None:
    """The weights of a folder for llama.cpp, in ``bf16``, ``f16`` or ``q8_0``; its tokens are numbers."""
    import gguf
    from safetensors import safe_open

    asked = SHAPES[shape]
    settings = asked.settings
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    architecture = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[asked.gguf]
    writer = gguf.GGUFWriter(path, asked.gguf)
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(settings["vocab_size"])
    if "sliding_window" in settings:
        writer.add_sliding_window(settings["sliding_window"])
    if "num_experts" in settings:
        writer.add_expert_count(settings["num_experts"])
        writer.add_expert_used_count(settings["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(settings["moe_intermediate_size"])
    writer.add_tokenizer_model("llama")
    count = settings["vocab_size"]
    writer.add_token_list([f"t{i}".encode() for i in range(count)])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([2, 3, 3] + [1] * (count - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(architecture, settings["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name, tensor in _stacked(file):
            target = names.get_name(name.removesuffix(".weight"))
            assert target is not None, name
            if tensor.dim() == 1:
                # llama.cpp multiplies with the weights of Gemma's norms as they are.
                plain = tensor.float() + (asked.gguf == "gemma3")
                writer.add_tensor(f"{target}.weight", plain.numpy())
            elif name.endswith("mlp.gate.weight"):
                writer.add_tensor(f"{target}.weight", tensor.float().numpy())
            else:
                data = gguf.quants.quantize(tensor.float().numpy(), kind)
                writer.add_tensor(f"{target}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stacked(file: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of a file, and those of all experts of a layer as one tensor."""
    keys = set(file.keys())
    for name in sorted(keys):
        stem, found, rest = name.partition(".experts.")
        if not found:
            yield name, file.get_tensor(name)
        elif rest.startswith("0."):
            part = rest.removeprefix("0.")
            count = sum(key.startswith(f"{stem}.experts.") and key.endswith(part) for key in keys)
            each = [file.get_tensor(f"{stem}.experts.{expert}.{part}") for expert in range(count)]
            yield f"{stem}.experts.{part}", torch.stack(each)
