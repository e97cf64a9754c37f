"""LLaMA 1 to 3 and everything published as ``llama``. Names and defaults as in transformers' LlamaConfig."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts.layout import TextLayout

TENSORS = {
    "embed_tokens.weight": "model.embed_tokens.weight",
    "layers.{n}.attention_norm.weight": "model.layers.{n}.input_layernorm.weight",
    "layers.{n}.attention.q_proj.weight": "model.layers.{n}.self_attn.q_proj.weight",
    "layers.{n}.attention.k_proj.weight": "model.layers.{n}.self_attn.k_proj.weight",
    "layers.{n}.attention.v_proj.weight": "model.layers.{n}.self_attn.v_proj.weight",
    "layers.{n}.attention.o_proj.weight": "model.layers.{n}.self_attn.o_proj.weight",
    "layers.{n}.attention.q_proj.bias": "model.layers.{n}.self_attn.q_proj.bias",
    "layers.{n}.attention.k_proj.bias": "model.layers.{n}.self_attn.k_proj.bias",
    "layers.{n}.attention.v_proj.bias": "model.layers.{n}.self_attn.v_proj.bias",
    "layers.{n}.attention.o_proj.bias": "model.layers.{n}.self_attn.o_proj.bias",
    "layers.{n}.ffn_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "layers.{n}.feed_forward.w_gate.weight": "model.layers.{n}.mlp.gate_proj.weight",
    "layers.{n}.feed_forward.w_up.weight": "model.layers.{n}.mlp.up_proj.weight",
    "layers.{n}.feed_forward.w_down.weight": "model.layers.{n}.mlp.down_proj.weight",
    "layers.{n}.feed_forward.w_gate.bias": "model.layers.{n}.mlp.gate_proj.bias",
    "layers.{n}.feed_forward.w_up.bias": "model.layers.{n}.mlp.up_proj.bias",
    "layers.{n}.feed_forward.w_down.bias": "model.layers.{n}.mlp.down_proj.bias",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}

QK_NORMS = {
    "layers.{n}.attention.q_norm.weight": "model.layers.{n}.self_attn.q_norm.weight",
    "layers.{n}.attention.k_norm.weight": "model.layers.{n}.self_attn.k_norm.weight",
}
"""What models with a norm of queries and keys have beside these."""

# Sizes have no default here although transformers has one: a file without them is damaged, and a 7B
# model's sizes would only turn that into a longer list of missing tensors.
DEFAULTS: dict[str, JSON] = {
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}

LLAMA = TextLayout(
    model_type="llama",
    models="Llama 1 to 3.3, TinyLlama, SmolLM2, Yi, Falcon 3, DeepSeek-R1 distills",
    tensors=TENSORS,
    defaults=DEFAULTS,
)
