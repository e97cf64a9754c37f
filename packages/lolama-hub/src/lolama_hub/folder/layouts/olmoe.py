"""OLMoE: LLaMA with experts, and a norm of queries and keys over all heads."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import experts, llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
}


def switches(config: Fields) -> dict[str, JSON]:
    """The experts.

    Raises:
        ModelError: naming the field; also for queries, keys and values that are clipped.
    """
    if config.get("clip_qkv") is not None:
        raise config.refuse("clip_qkv", "null: clipped queries, keys and values are not supported")
    return {
        **experts.expert_fields(config, width="intermediate_size"),
        **experts.normalized_weights(config),
    }


OLMOE = TextLayout(
    model_type="olmoe",
    models="OLMoE 1B-7B",
    tensors=llama.TENSORS | llama.QK_NORMS | experts.TENSORS,
    other_tensors=experts.FUSED,
    defaults=DEFAULTS,
    fixed={"mlp_bias": False, "qk_norm": "width"},
    switches=switches,
)
