"""Qwen3-MoE: Qwen3 with experts."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import experts, llama, mistral, qwen3
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 4,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
}


def switches(config: Fields) -> dict[str, JSON]:
    """The experts, and the layers that have them.

    Raises:
        ModelError: naming the field.
    """
    return {
        **experts.expert_fields(config, width="moe_intermediate_size"),
        **experts.normalized_weights(config),
        **experts.dense_layers(config),
    }


def windows(config: Fields, num_layers: int, max_seq_len: int) -> dict[str, JSON]:
    """The window of all layers, where ``use_sliding_window`` is true.

    Raises:
        ModelError: if ``layer_types`` asks for anything else.
    """
    if not config.boolean("use_sliding_window"):
        config = Fields(config.path, {**config.values, "sliding_window": None}, config.defaults)
    return mistral.windows(config, num_layers, max_seq_len)


QWEN3_MOE = TextLayout(
    model_type="qwen3_moe",
    models="Qwen3 30B-A3B and 235B-A22B, Qwen3-Coder 30B-A3B",
    tensors=llama.TENSORS | llama.QK_NORMS | experts.TENSORS,
    other_tensors=experts.FUSED,
    defaults=DEFAULTS,
    fixed=qwen3.QWEN3.fixed,
    windows=windows,
    switches=switches,
)
