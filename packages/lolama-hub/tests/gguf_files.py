"""Models of transformers as GGUF files, as llama.cpp's ``conversion/*.py`` write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.types import ModelFiles
from lolama_hub.gguf.resolve_gguf import resolve_gguf
from lolama_hub.store.place import Store

PERMUTED = ("llama", "mistral3", "smollm3", "granite", "granitemoe")
"""Architectures whose rows of q and k the converter moves."""

FUSED = ("phi3", "glm4", "chatglm")
"""Those that keep gate and up in one tensor."""


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows of a weight, or values of a bias, whose rotated pairs stand side by side."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).flatten(0, 2)


def stored_tensors(model: Any, architecture: str) -> Iterator[tuple[str, Tensor]]:
    """GGUF's name and content of all tensors of a model of transformers."""
    config = model.config
    arch = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        layer = name.removeprefix("model.layers.").partition(".")[0]
        if architecture in PERMUTED and ".self_attn.q_proj." in name:
            tensor = permuted(tensor, config.num_attention_heads)
        if architecture in PERMUTED and ".self_attn.k_proj." in name:
            tensor = permuted(tensor, config.num_key_value_heads)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        if name.endswith("shared_mlp.input_linear.weight"):
            gate, up = tensor.chunk(2, dim=-2)
            yield f"blk.{layer}.ffn_gate.weight", gate
            yield f"blk.{layer}.ffn_up.weight", up
        elif name.endswith("shared_mlp.output_linear.weight"):
            yield f"blk.{layer}.ffn_down.weight", tensor
        elif name.endswith((".experts.gate_up_proj", "block_sparse_moe.input_linear.weight")):
            gate, up = tensor.chunk(2, dim=-2)
            yield f"blk.{layer}.ffn_gate_exps.weight", gate
            yield f"blk.{layer}.ffn_up_exps.weight", up
        elif name.endswith((".experts.down_proj", "block_sparse_moe.output_linear.weight")):
            yield f"blk.{layer}.ffn_down_exps.weight", tensor
        elif name.endswith(
            (
                "mlp.gate.weight",
                "block_sparse_moe.gate.weight",
                "router.layer.weight",
                "router.weight",
            )
        ):
            yield f"blk.{layer}.ffn_gate_inp.weight", tensor
        else:
            found = table.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found is not None, name
            yield found, tensor.squeeze()
    yield from rope_tensors(config)


def rope_tensors(config: Any) -> Iterator[tuple[str, Tensor]]:
    """Factors of rotary pairs: those of Llama 3, and of LongRoPE."""
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    if rope.get("rope_type") == "llama3":
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        yield "rope_freqs.weight", llama3_factors(rope, width)
    for kind in ("long", "short"):
        if rope.get(f"{kind}_factor"):
            yield f"rope_factors_{kind}.weight", torch.tensor(rope[f"{kind}_factor"])


def llama3_factors(rope: Mapping[str, Any], width: int) -> Tensor:
    """What frequencies are divided by."""
    found = []
    original, low, high = (
        rope[name]
        for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    for pair in range(width // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / width)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(found)


def add_metadata(writer: gguf.GGUFWriter, config: Any) -> None:
    """What the converter writes of each model."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    width = head_dim or config.hidden_size // config.num_attention_heads
    both = config.rope_parameters
    rope = both.get("full_attention", both)
    part = rope.get("partial_rotary_factor") or 1.0
    writer.add_rope_dimension_count(int(width * part))
    writer.add_rope_freq_base(rope["rope_theta"])
    if "sliding_attention" in both:
        writer.add_rope_freq_base_swa(both["sliding_attention"]["rope_theta"])
    kind = rope.get("rope_type")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("attention_factor") is not None:
            writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
    for name, add in (
        ("num_local_experts", writer.add_expert_count),
        ("num_experts", writer.add_expert_count),
        ("num_experts_per_tok", writer.add_expert_used_count),
        ("moe_intermediate_size", writer.add_expert_feed_forward_length),
        ("shared_expert_intermediate_size", writer.add_expert_shared_feed_forward_length),
        ("attention_multiplier", writer.add_attention_scale),
        ("embedding_multiplier", writer.add_embedding_scale),
        ("residual_multiplier", writer.add_residual_scale),
        ("logits_scaling", writer.add_logit_scale),
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ("sliding_window", writer.add_sliding_window),
    ):
        if getattr(config, name, None):
            add(getattr(config, name))


def write_gguf(
    path: Path,
    architecture: str,
    model: Any,
    *,
    more: Callable[[gguf.GGUFWriter, Any], None] = lambda _writer, _config: None,
    quantized: Mapping[str, str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
    split: int = 0,
) -> Path:
    """Write a model of transformers; all weights are F32 unless ``quantized`` has the end of their name.

    Args:
        path: The file.
        architecture: As llama.cpp calls it.
        model: The model.
        more: Adds further metadata.
        quantized: End of a tensor's name → the type it gets.
        extra: Further tensors.
        split: Tensors in each file; 0 for one file.
    """
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    add_metadata(writer, model.config)
    more(writer, model.config)
    for name, tensor in (*stored_tensors(model, architecture), *(extra or {}).items()):
        kind = next((kind for end, kind in (quantized or {}).items() if name.endswith(end)), "F32")
        found = gguf.GGMLQuantizationType[kind]
        data = tensor.detach().float().numpy()
        if kind == "F32":
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quantize(data, found), raw_dtype=found)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_gguf(path: Path, io: FileCheckpointIO | None = None) -> ModelFiles:
    """The model of a file; what is made of its tokenizer lies beside it."""
    return resolve_gguf("tiny", path, io or FileCheckpointIO(), Store(path.parent / "store"))
