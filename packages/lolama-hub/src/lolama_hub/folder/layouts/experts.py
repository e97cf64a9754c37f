"""Mixtures of experts: how their tensors are called, and what config.json says of them."""

from __future__ import annotations

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields

_MOST = 1 << 12
_EXPERT = "layers.{n}.feed_forward.experts.{e}."
_GATE_UP = "model.layers.{n}.mlp.experts.gate_up_proj"

TENSORS = {
    "layers.{n}.feed_forward.router.weight": "model.layers.{n}.mlp.gate.weight",
    f"{_EXPERT}w_gate.weight": "model.layers.{n}.mlp.experts.{e}.gate_proj.weight",
    f"{_EXPERT}w_up.weight": "model.layers.{n}.mlp.experts.{e}.up_proj.weight",
    f"{_EXPERT}w_down.weight": "model.layers.{n}.mlp.experts.{e}.down_proj.weight",
}
"""``{e}`` is the expert."""

FUSED = {
    "layers.{n}.feed_forward.router.weight": "model.layers.{n}.mlp.gate.weight",
    f"{_EXPERT}w_gate.weight": _GATE_UP,
    f"{_EXPERT}w_up.weight": _GATE_UP,
    f"{_EXPERT}w_down.weight": "model.layers.{n}.mlp.experts.down_proj",
}
"""The same where all experts of a layer are one tensor: (E, 2 · width, D) and (E, D, width)."""


def expert_fields(config: Fields, *, width: str) -> dict[str, JSON]:
    """The number of experts, how many a token goes through, and their width.

    transformers 5 writes ``num_local_experts`` for some architectures that were published with
    ``num_experts``, and reads both.

    Args:
        config: config.json.
        width: The key of an expert's inner width.

    Raises:
        ModelError: naming the field.
    """
    names = ("num_local_experts", "num_experts")
    given = [name for name in names if name in config.values] or [
        name for name in names if name in config.defaults
    ]
    count, *others = (config.integer(name, high=_MOST) for name in given)
    if any(other != count for other in others):
        raise config.refuse("num_experts", f"{count}, as num_local_experts says")
    return {
        "num_experts": count,
        "experts_per_token": config.integer("num_experts_per_tok", high=count),
        "expert_dim": config.integer(width),
    }


def normalized_weights(config: Fields) -> dict[str, JSON]:
    """Whether the weights of a token's experts sum to 1."""
    return {"normalize_expert_weights": True} if config.boolean("norm_topk_prob") else {}


def dense_layers(config: Fields) -> dict[str, JSON]:
    """The layers without experts: ``mlp_only_layers``, and all but the last of each ``decoder_sparse_step``.

    Raises:
        ModelError: naming the field.
    """
    step, listed = config.integer("decoder_sparse_step"), config.get("mlp_only_layers")
    if listed is None:
        listed = []
    if not isinstance(listed, list) or not all(is_integer(layer, 0) for layer in listed):
        raise config.refuse("mlp_only_layers", "a list of numbers of layers")
    layers, without = range(config.integer("num_hidden_layers")), frozenset(listed)
    dense: list[JSON] = [layer for layer in layers if layer in without or (layer + 1) % step]
    return {"dense_layers": dense} if dense else {}
