"""Granite 3, and the dense models of Granite 4: LLaMA with four multipliers."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout

_MULTIPLIERS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_divisor": "logits_scaling",
}

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    **dict.fromkeys(_MULTIPLIERS.values(), 1.0),
    "attention_multiplier": 1.0,
}


def switches(config: Fields) -> dict[str, JSON]:
    """The multipliers that do something.

    Raises:
        ModelError: for one that is no positive number.
    """
    found: dict[str, JSON] = {}
    for ours, theirs in _MULTIPLIERS.items():
        value = config.number(theirs, low=1e-6, high=1e6)
        if value != 1:
            found[ours] = value
    return found | {"attention_scale": config.number("attention_multiplier", low=1e-6, high=1e6)}


GRANITE = TextLayout(
    model_type="granite",
    models="Granite 3",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    switches=switches,
    scales_pictures=True,
)

_FUSED = {
    "layers.{n}.feed_forward.w_gate.weight": "model.layers.{n}.shared_mlp.input_linear.weight",
    "layers.{n}.feed_forward.w_up.weight": "model.layers.{n}.shared_mlp.input_linear.weight",
    "layers.{n}.feed_forward.w_down.weight": "model.layers.{n}.shared_mlp.output_linear.weight",
}


def dense_switches(config: Fields) -> dict[str, JSON]:
    """The multipliers, the width of the feed-forward network, and whether there is a rotation.

    Raises:
        ModelError: for layers of Mamba, or experts.
    """
    num_layers = config.integer("num_hidden_layers")
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != num_layers or set(kinds) - _ATTENTION:
        raise config.refuse("layer_types", "attention in every layer: Mamba is not supported")
    if config.get("num_local_experts") not in (None, 0):
        raise config.refuse(
            "num_local_experts", "0: experts of this architecture are not supported"
        )
    if config.get("position_embedding_type") not in (None, "rope"):
        raise config.refuse("position_embedding_type", "rope or null")
    found = switches(config) | {"hidden_dim": config.integer("shared_intermediate_size")}
    if config.get("position_embedding_type") is None:
        found["unrotated_layers"] = list(range(num_layers))
    return found


_ATTENTION = {"attention", "full_attention"}

GRANITE_HYBRID = TextLayout(
    model_type="granitemoehybrid",
    models="Granite 4, dense",
    tensors=llama.TENSORS | _FUSED,
    defaults=DEFAULTS | {"num_local_experts": 8, "shared_intermediate_size": 1024},
    fixed={"mlp_bias": False},
    switches=dense_switches,
    scales_pictures=True,
)
