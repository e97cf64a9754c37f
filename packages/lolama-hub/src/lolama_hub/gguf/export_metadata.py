"""A canonical ``model`` block → metadata of GGUF, and factors of rotary pairs: what `architectures` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.errors import ModelError
from lolama_hub.gguf.architectures import Architecture
from lolama_hub.gguf.metadata import ROPE_TENSORS, llama3_factors

_KEYS = {
    "vocab_size": "vocab_size",
    "num_layers": "block_count",
    "max_seq_len": "context_length",
    "d_model": "embedding_length",
    "hidden_dim": "feed_forward_length",
    "num_heads": "attention.head_count",
    "num_kv_heads": "attention.head_count_kv",
    "eps": "attention.layer_norm_rms_epsilon",
    "rope_base": "rope.freq_base",
    "sliding_rope_base": "rope.freq_base_swa",
    "sliding_window": "attention.sliding_window",
    "attention_scale": "attention.scale",
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
    "embedding_scale": "embedding_scale",
    "residual_scale": "residual_scale",
    "logit_divisor": "logit_scale",
    "query_scale_beta": "attention.temperature_scale",
    "num_experts": "expert_count",
    "experts_per_token": "expert_used_count",
    "expert_dim": "expert_feed_forward_length",
    "shared_expert_dim": "expert_shared_feed_forward_length",
}
"""Canonical field → key, for fields whose value is the key's."""

_FREQUENCIES, _LONG, _SHORT = ROPE_TENSORS


def model_metadata(
    name: str, architecture: Architecture, block: Mapping[str, Any]
) -> dict[str, GGUFValue]:
    """What a file says of the model.

    Args:
        name: The architecture, as llama.cpp calls it.
        architecture: It.
        block: The canonical ``model`` block, with all fields that are set.
    """
    head_dim = block["head_dim"]
    own: dict[str, GGUFValue] = {**architecture.always}
    own |= {
        key: block[field]
        for field, key in _KEYS.items()
        if block.get(field) is not None and field not in architecture.implied
    }
    own |= dict.fromkeys(("attention.key_length", "attention.value_length"), head_dim)
    own["rope.dimension_count"] = block.get("rotary_dim") or head_dim
    layers = list(range(block["num_layers"]))
    if block.get("sliding_window") is not None:
        sliding = block.get("sliding_layers", layers)
        own["attention.sliding_window_pattern"] = [layer in sliding for layer in layers]
    if block.get("unrotated_layers") == layers:
        own["rope.scaling.finetuned"] = False
    own |= _rope(block)
    return {"general.architecture": name} | {f"{name}.{key}": one for key, one in own.items()}


def rope_tensors(architecture: Architecture, block: Mapping[str, Any]) -> dict[str, list[float]]:
    """Factors of rotary pairs: GGUF's name of a tensor → its values.

    Raises:
        ModelError: if the architecture reads none, and the model has some.
    """
    meaning = rope_meaning(block)
    found = {
        name: meaning[kind]
        for name, kind in ((_FREQUENCIES, "factors"), (_LONG, "long"), (_SHORT, "short"))
        if kind in meaning
    }
    if found and not architecture.factors:
        kind = block["rope_scaling"]["type"]
        raise ModelError("GGUF", f"has no place for rope_scaling of the type {kind}")
    return found


def rope_meaning(block: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's ``rope_scaling`` comes to, in the same words however it is spelled.

    The settings of Llama 3 are factors of pairs, as GGUF has them, and so are those of LongRoPE where they
    are the same at every length.
    """
    scaling = block.get("rope_scaling")
    if scaling is None:
        return {}
    kind, factor, original = (scaling[key] for key in ("type", "factor", "original_max_seq_len"))
    attention = scaling.get("attention_factor")
    if kind == "llama3":
        width = block.get("rotary_dim") or block["head_dim"]
        band = (scaling["low_freq_factor"], scaling["high_freq_factor"])
        return {"factors": llama3_factors(block["rope_base"], width, factor, original, *band)}
    if kind == "longrope":
        if attention is None:
            attention = math.sqrt(1 + math.log(factor) / math.log(original))
        short, long = list(scaling["short_factor"]), list(scaling["long_factor"])
        if short == long and attention == 1:
            return {"factors": short}
        return {"short": short, "long": long, "attention": attention, "original": original}
    found = {"type": kind, "factor": factor, "original": original}
    if kind == "yarn":
        usual = 0.1 * math.log(factor) + 1.0
        found |= {"attention": usual if attention is None else attention}
        found |= {key: scaling[key] for key in ("beta_fast", "beta_slow", "truncate")}
    return found


def _rope(block: Mapping[str, Any]) -> dict[str, GGUFValue]:
    meaning = rope_meaning(block)
    if not meaning or "factors" in meaning:
        return {}
    found: dict[str, GGUFValue] = {"rope.scaling.original_context_length": meaning["original"]}
    if "long" in meaning:
        found |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.attn_factor": meaning["attention"],
        }
        return found
    kind, factor = meaning["type"], meaning["factor"]
    found |= {"rope.scaling.type": kind, "rope.scaling.factor": factor}
    if kind == "yarn":
        found |= {
            "rope.scaling.yarn_beta_fast": meaning["beta_fast"],
            "rope.scaling.yarn_beta_slow": meaning["beta_slow"],
            "rope.scaling.yarn_attn_factor": meaning["attention"],
            # llama.cpp multiplies this with 0.1 ln(factor) + 1, and does not read the other one.
            "rope.scaling.attn_factor": meaning["attention"] / (0.1 * math.log(factor) + 1.0),
        }
    elif kind == "linear" and block["max_seq_len"] == int(meaning["original"] * factor):
        # As published, and as llama.cpp's converter has it: the stretched length follows.
        found["context_length"] = meaning["original"]
    return found
