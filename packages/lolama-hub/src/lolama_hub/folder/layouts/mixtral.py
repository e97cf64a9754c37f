"""Mixtral: Mistral with experts, whose weights sum to 1 for each token."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import experts, llama, mistral
from lolama_hub.folder.layouts.layout import TextLayout

_BLOCK = "model.layers.{n}.block_sparse_moe."
_EXPERTS = {
    "layers.{n}.feed_forward.router.weight": f"{_BLOCK}gate.weight",
    "layers.{n}.feed_forward.experts.{e}.w_gate.weight": _BLOCK + "experts.{e}.w1.weight",
    "layers.{n}.feed_forward.experts.{e}.w_up.weight": _BLOCK + "experts.{e}.w3.weight",
    "layers.{n}.feed_forward.experts.{e}.w_down.weight": _BLOCK + "experts.{e}.w2.weight",
}

DEFAULTS: dict[str, JSON] = mistral.DEFAULTS | {
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def switches(config: Fields) -> dict[str, JSON]:
    """The experts.

    Raises:
        ModelError: naming the field.
    """
    return experts.expert_fields(config, width="intermediate_size")


MIXTRAL = TextLayout(
    model_type="mixtral",
    models="Mixtral 8x7B and 8x22B",
    tensors=llama.TENSORS | _EXPERTS,
    other_tensors=experts.FUSED,
    defaults=DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False, "normalize_expert_weights": True},
    windows=mistral.windows,
    switches=switches,
)
