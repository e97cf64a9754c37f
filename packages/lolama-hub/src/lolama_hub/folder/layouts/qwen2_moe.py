"""Qwen2-MoE and Qwen1.5-MoE: Qwen2 with experts, and one more that every token goes through."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import experts, llama, qwen2
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import FULL, SLIDING

_BLOCK = "model.layers.{n}.mlp."
_SHARED = {
    "layers.{n}.feed_forward.shared_gate.weight": f"{_BLOCK}shared_expert_gate.weight",
    "layers.{n}.feed_forward.shared_expert.w_gate.weight": f"{_BLOCK}shared_expert.gate_proj.weight",
    "layers.{n}.feed_forward.shared_expert.w_up.weight": f"{_BLOCK}shared_expert.up_proj.weight",
    "layers.{n}.feed_forward.shared_expert.w_down.weight": f"{_BLOCK}shared_expert.down_proj.weight",
}

DEFAULTS: dict[str, JSON] = qwen2.DEFAULTS | {
    "num_key_value_heads": 16,
    "qkv_bias": True,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "norm_topk_prob": False,
}


def switches(config: Fields) -> dict[str, JSON]:
    """The experts, the layers that have them, and biases of q, k and v.

    Raises:
        ModelError: naming the field.
    """
    return {
        "attention_bias": "qkv" if config.boolean("qkv_bias") else False,
        **experts.expert_fields(config, width="moe_intermediate_size"),
        "shared_expert_dim": config.integer("shared_expert_intermediate_size"),
        **experts.normalized_weights(config),
        **experts.dense_layers(config),
    }


def windows(config: Fields, num_layers: int, max_seq_len: int) -> dict[str, JSON]:
    """The window of ``layer_types``, or of every other layer below ``max_window_layers``.

    Raises:
        ModelError: for layers that slide without a window.
    """
    if config.get("layer_types") is None and config.boolean("use_sliding_window"):
        end = config.integer("max_window_layers", low=0)
        kinds: list[JSON] = [
            SLIDING if layer < end and layer % 2 == 0 else FULL for layer in range(num_layers)
        ]
        values = {**config.values, "layer_types": kinds}
        config = Fields(config.path, values, config.defaults)
    return qwen2.windows(config, num_layers, max_seq_len)


QWEN2_MOE = TextLayout(
    model_type="qwen2_moe",
    models="Qwen1.5-MoE, Qwen2-57B-A14B",
    tensors=llama.TENSORS | experts.TENSORS | _SHARED,
    other_tensors=experts.FUSED,
    defaults=DEFAULTS,
    fixed={"mlp_bias": False},
    windows=windows,
    switches=switches,
)
