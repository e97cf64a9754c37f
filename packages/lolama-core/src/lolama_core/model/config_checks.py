"""What the fields of a `LlamaConfig` may be, and what they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lolama_core.model.rope_scaling import LONGEST, RopeScaling
from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    from_mapping,
    is_integer,
    refused,
)

PACKAGE = "lolama-core"

# Far above any published model, far below what would hang or exhaust a machine before it is refused.
_LIMITS = {
    "vocab_size": 1 << 22,
    "d_model": 1 << 17,
    "num_heads": 1 << 12,
    "num_layers": 1 << 10,
    "hidden_dim": 1 << 20,
    "max_seq_len": LONGEST,
}
_MOST_HEADS = 1 << 12
_WIDEST_HEAD = 1 << 12
_MOST_EXPERTS = 1 << 12
_LONGEST_WINDOW = 1 << 40


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not kept as they are given: sizes that follow from others, lists, objects.

    Raises:
        ModelError: naming the field, its value and what was expected.
    """
    for name, limit in _LIMITS.items():
        check_integer(name, given[name], limit)
    sizes = {"num_kv_heads": _num_kv_heads(given), "head_dim": _head_dim(given)}
    if given["sliding_window"] is not None:
        check_integer("sliding_window", given["sliding_window"], _LONGEST_WINDOW)
    check_number("rope_base", given["rope_base"], 1.0, 1e12)
    check_number("eps", given["eps"], 0.0, 1.0)
    for name in ("tie_word_embeddings", "mlp_bias"):
        check_boolean(name, given[name])
    bias = given["attention_bias"]
    if not isinstance(bias, bool) and bias != "qkv":
        raise refused("attention_bias", bias, 'true, false or "qkv"')
    made = {**sizes, "rope_scaling": _rope_scaling(given), **_checked_switches(given)}
    _check_rotary_dim({**given, **made}, made["head_dim"])
    return made


def _num_kv_heads(given: Mapping[str, Any]) -> int:
    heads: int = given["num_heads"]
    if given["num_kv_heads"] is None:
        return heads
    kv_heads = check_integer("num_kv_heads", given["num_kv_heads"], _MOST_HEADS)
    if heads % kv_heads:
        raise refused("num_kv_heads", kv_heads, f"a divisor of num_heads ({heads})")
    return kv_heads


def _head_dim(given: Mapping[str, Any]) -> int:
    head_dim, heads, width = given["head_dim"], given["num_heads"], given["d_model"]
    if head_dim is None:
        if width % heads:
            raise refused("num_heads", heads, f"a divisor of d_model ({width})")
        head_dim = width // heads
    if check_integer("head_dim", head_dim, _WIDEST_HEAD) % 2:
        raise refused("head_dim", head_dim, "an even number, for rotary pairs")
    return int(head_dim)


def _rope_scaling(given: Mapping[str, Any]) -> RopeScaling | None:
    scaling = given["rope_scaling"]
    if isinstance(scaling, Mapping):
        scaling = from_mapping(RopeScaling, scaling, "rope_scaling", PACKAGE)
    if scaling is not None and not isinstance(scaling, RopeScaling):
        raise refused("rope_scaling", scaling, "an object or null")
    # With base 1 all pairs turn alike, and yarn divides by the logarithm of the base.
    if scaling and scaling.type == "yarn" and given["rope_base"] <= 1:
        raise refused("rope_base", given["rope_base"], "a number above 1, with yarn")
    return scaling


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "activation": ("silu", "gelu", "gelu_tanh"),
    "norms": ("before", "after", "both"),
    "qk_norm": (None, "head", "width"),
}
_POSITIVE = (
    "embedding_scale",
    "residual_scale",
    "attention_scale",
    "logit_divisor",
    "attention_softcap",
    "logit_softcap",
    "query_scale_beta",
)


def _checked_switches(given: Mapping[str, Any]) -> dict[str, Any]:
    for name, choices in _CHOICES.items():
        if isinstance(given[name], list | dict) or given[name] not in choices:
            known = ", ".join("null" if one is None else f'"{one}"' for one in choices)
            raise refused(name, given[name], f"one of {known}")
    for name in _POSITIVE:
        if given[name] is not None:
            check_number(name, given[name], 1e-6, 1e6)
    if given["sliding_rope_base"] is not None:
        check_number("sliding_rope_base", given["sliding_rope_base"], 1.0, 1e12)
    if given["query_scale_length"] is not None:
        check_integer("query_scale_length", given["query_scale_length"], LONGEST)
    if (given["query_scale_beta"] is None) != (given["query_scale_length"] is None):
        expected = "given together with query_scale_length"
        raise refused("query_scale_beta", given["query_scale_beta"], expected)
    _check_experts(given)
    sliding = given["sliding_layers"]
    return {
        "sliding_layers": None if sliding is None else _layers("sliding_layers", given),
        "unrotated_layers": _layers("unrotated_layers", given),
        "dense_layers": _layers("dense_layers", given),
    }


def _check_experts(given: Mapping[str, Any]) -> None:
    check_boolean("normalize_expert_weights", given["normalize_expert_weights"])
    count = given["num_experts"]
    if count is None:
        for name in ("experts_per_token", "expert_dim", "shared_expert_dim"):
            if given[name] is not None:
                raise refused(name, given[name], "null, where num_experts is null")
        return
    check_integer("num_experts", count, _MOST_EXPERTS)
    check_integer("experts_per_token", given["experts_per_token"], count)
    check_integer("expert_dim", given["expert_dim"], _LIMITS["hidden_dim"])
    if given["shared_expert_dim"] is not None:
        check_integer("shared_expert_dim", given["shared_expert_dim"], _LIMITS["hidden_dim"])


def _check_rotary_dim(given: Mapping[str, Any], head_dim: int) -> None:
    rotary = given["rotary_dim"]
    if rotary is not None and check_integer("rotary_dim", rotary, head_dim, low=0) % 2:
        raise refused("rotary_dim", rotary, "an even number, for rotary pairs")
    scaling, pairs = given["rope_scaling"], (head_dim if rotary is None else rotary) // 2
    if isinstance(scaling, RopeScaling) and scaling.type == "longrope" and pairs:
        for name in ("short_factor", "long_factor"):
            found = len(getattr(scaling, name))
            if found != pairs:
                expected = f"{pairs} numbers, one for each rotated pair"
                raise refused(f"rope_scaling {name}", f"a list of {found}", expected)


def _layers(name: str, given: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of layers, which a file has as a list."""
    layers, last = given[name], given["num_layers"] - 1
    if (
        not isinstance(layers, list | tuple)
        or not all(is_integer(layer, 0, last) for layer in layers)
        or len(set(layers)) < len(layers)
    ):
        raise refused(name, layers, f"a list of different numbers of layers, from 0 to {last}")
    return tuple(layers)
