"""Mixtures of experts in GGUF: what metadata and tensors say of them, as fields of config.json."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.gguf.metadata import GGUFModel

_SOFTMAX = 1  # of `expert_gating_func`


def has_experts(model: GGUFModel) -> bool:
    """Whether any layer has experts."""
    return model.get("expert_count") not in (None, 0)


def expert_width(model: GGUFModel) -> int:
    """The inner width of an expert, as its tensors have it: metadata call it by one of two names."""
    shape = next(
        (one.shape for name, one in model.tensors.items() if name.endswith("ffn_down_exps.weight")),
        (),
    )
    if len(shape) != 3:
        raise model.refuse("expert_count", "0, since there are no tensors of experts")
    return shape[2]


def experts(model: GGUFModel, *, normalized: bool) -> dict[str, JSON]:
    """Fields of a mixture of experts.

    Args:
        model: The model.
        normalized: Whether the weights of a token's experts sum to 1, unless metadata say so.

    Raises:
        ModelError: for a router that does otherwise.
    """
    for name, expected in (
        ("expert_gating_func", (None, _SOFTMAX)),
        ("expert_weights_scale", (None, 0, 1)),
        ("expert_group_count", (None, 0, 1)),
    ):
        if model.get(name) not in expected:
            raise model.refuse(name, f"{expected[-1]}: other routers are not supported")
    if model.get("expert_weights_norm") is not None:
        normalized = model.boolean("expert_weights_norm")
    return {
        "num_experts": model.integer("expert_count"),
        "num_experts_per_tok": model.same("expert_used_count"),
        "moe_intermediate_size": expert_width(model),
        "norm_topk_prob": normalized,
    }


def mixture(model: GGUFModel, model_type: str, *, normalized: bool = True) -> dict[str, JSON]:
    """The fields of a mixture whose experts have the width that config.json calls ``intermediate_size``."""
    found = experts(model, normalized=normalized)
    width = {"intermediate_size": found["moe_intermediate_size"]}
    return {"model_type": model_type, **found, **width}
