"""Granite 3 with experts: Granite's multipliers, and all experts of a layer in two tensors."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import experts, granite, llama
from lolama_hub.folder.layouts.layout import TextLayout

_BLOCK = "model.layers.{n}.block_sparse_moe."


def _tensors(router: str, gate_up: str, down: str) -> dict[str, str]:
    """Canonical → published name of what replaces the feed-forward network."""
    expert = "layers.{n}.feed_forward.experts.{e}."
    return {
        "layers.{n}.feed_forward.router.weight": _BLOCK + router,
        f"{expert}w_gate.weight": _BLOCK + gate_up,
        f"{expert}w_up.weight": _BLOCK + gate_up,
        f"{expert}w_down.weight": _BLOCK + down,
    }


def switches(config: Fields) -> dict[str, JSON]:
    """The multipliers and the experts.

    Raises:
        ModelError: naming the field.
    """
    width = "intermediate_size"
    return granite.switches(config) | experts.expert_fields(config, width=width)


GRANITE_MOE = TextLayout(
    model_type="granitemoe",
    models="Granite 3 MoE: 1B-A400M and 3B-A800M",
    tensors=llama.TENSORS
    | _tensors("router.layer.weight", "input_linear.weight", "output_linear.weight"),
    other_tensors=_tensors("router.weight", "experts.gate_up_proj", "experts.down_proj"),
    defaults=granite.DEFAULTS | {"num_local_experts": 8, "num_experts_per_tok": 2},
    fixed={"mlp_bias": False, "normalize_expert_weights": True},
    switches=switches,
    scales_pictures=True,
)
