"""Tiny models of every architecture that GGUF files of lolama may have."""

from __future__ import annotations

from typing import Any

import gguf
import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 80,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.22,
    "logits_scaling": 3.0,
}
FACTORS = [1.0, 1.1, 1.3, 1.5, 2.0, 2.2, 2.5, 3.0]


def rope(rope_type: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
LONGROPE = rope(
    "longrope",
    short_factor=FACTORS[:6],
    long_factor=[4 * each for each in FACTORS[:6]],
    original_max_position_embeddings=16,
    partial_rotary_factor=0.75,
)
QUERIES_GROW = {
    **YARN["rope_parameters"],
    "llama_4_scaling_beta": 0.5,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
YARN_IN_FULL = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "attention_factor": 1.2,
    },
}
TWO_KINDS = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama", {}),
    "llama_bias": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_head_dim": ("llama", "llama", {"head_dim": 24}),
    "llama_tied": ("llama", "llama", {"tie_word_embeddings": True}),
    "llama_linear": ("llama", "llama", rope("linear", factor=4.0)),
    "llama_yarn": ("llama", "llama", YARN),
    "llama_3": (
        "llama",
        "llama",
        rope("llama3", **LLAMA3, original_max_position_embeddings=8192),
    ),
    "llama_3_short": (
        "llama",
        "llama",
        rope("llama3", **LLAMA3, original_max_position_embeddings=16),
    ),
    "mistral": ("llama", "mistral", {"sliding_window": None}),
    "mixtral": ("llama", "mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "mistral3": ("mistral3", "mistral", {"sliding_window": None}),
    "ministral3": ("mistral3", "ministral3", {"rope_parameters": QUERIES_GROW}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen2_tied": ("qwen2", "qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2moe": ("qwen2moe", "qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 64}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 32}),
    "qwen3moe": ("qwen3moe", "qwen3_moe", {**EXPERTS, "norm_topk_prob": True}),
    "smollm3": ("smollm3", "smollm3", {"num_hidden_layers": 5}),
    "granite": ("granite", "granite", MULTIPLIERS),
    "granite4": (
        "granite",
        "granitemoehybrid",
        {
            **MULTIPLIERS,
            "num_local_experts": 0,
            "shared_intermediate_size": 96,
            "position_embedding_type": "rope",
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "granite4_unrotated": (
        "granite",
        "granitemoehybrid",
        {
            "num_local_experts": 0,
            "shared_intermediate_size": 96,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "granitemoe": ("granitemoe", "granitemoe", MULTIPLIERS),
    "phi3": ("phi3", "phi3", {}),
    "phi3_mini": ("phi3", "phi3", {"original_max_position_embeddings": 16, **LONGROPE}),
    "phi3_window": ("phi3", "phi3", {"sliding_window": 7, "num_key_value_heads": 4}),
    "olmo2": ("olmo2", "olmo2", {}),
    "olmo3": ("olmo2", "olmo3", {"num_hidden_layers": 5, "sliding_window": 7}),
    "olmo3_yarn": (
        "olmo2",
        "olmo3",
        {"num_hidden_layers": 5, "sliding_window": 7, **YARN_IN_FULL},
    ),
    "olmoe": ("olmoe", "olmoe", {"num_experts": 8, "num_experts_per_tok": 3}),
    "gemma": ("gemma", "gemma", {"head_dim": 32}),
    "gemma2": (
        "gemma2",
        "gemma2",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 7},
    ),
    "gemma3": (
        "gemma3",
        "gemma3_text",
        {
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 7,
            **TWO_KINDS,
        },
    ),
    "seed_oss": ("seed_oss", "seed_oss", {"head_dim": 24}),
    "ernie4_5": ("ernie4_5", "ernie4_5", {"head_dim": 24}),
    "exaone4": (
        "exaone4",
        "exaone4",
        {"num_hidden_layers": 5, "sliding_window": 7, "sliding_window_pattern": 4},
    ),
    "exaone4_small": (
        "exaone4",
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    ),
    "glm4": ("glm4", "glm4", {"head_dim": 16}),
    "chatglm": ("chatglm", "glm", {"head_dim": 16}),
}


def more(writer: gguf.GGUFWriter, config: Any) -> None:
    """What only some converters write."""
    kind = config.model_type
    if kind in ("olmo3", "exaone4") and config.sliding_window:
        writer.add_sliding_window_pattern(
            [one == "sliding_attention" for one in config.layer_types]
        )
    if kind == "granitemoehybrid":
        writer.add_rope_scaling_finetuned(config.position_embedding_type == "rope")
    rope = config.rope_parameters
    if kind == "ministral3":
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if kind == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)


def tiny_model(model_type: str, changes: dict[str, Any]) -> Any:
    """A random model of transformers whose norms and biases are random, too."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **(SIZES | changes))
    model: Any = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif "norm" in name:
                parameter.uniform_(-0.5, 0.5) if "gemma" in model_type else parameter.uniform_(
                    0.5, 1.5
                )
            else:
                parameter.normal_(std=0.1)
    return model.eval()
