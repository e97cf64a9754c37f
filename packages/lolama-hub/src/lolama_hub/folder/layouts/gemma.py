"""Gemma 1, 2 and 3, text alone: scaled embeddings, (1 + w) in norms, GELU, and what each version added."""

from __future__ import annotations

from collections.abc import Mapping

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import every_nth_is_full, rope_of_two_kinds
from lolama_hub.folder.rope_config import Rope

_TANH = "gelu_pytorch_tanh"
_BOTH_NORMS = llama.TENSORS | {
    "layers.{n}.attention_post_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "layers.{n}.ffn_norm.weight": "model.layers.{n}.pre_feedforward_layernorm.weight",
    "layers.{n}.ffn_post_norm.weight": "model.layers.{n}.post_feedforward_layernorm.weight",
}
_CAPS = {
    "attention_softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping",
}

_DEFAULTS: dict[str, JSON] = {
    "attention_bias": False,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
_DEFAULTS2 = _DEFAULTS | {
    "hidden_activation": _TANH,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_DEFAULTS3 = _DEFAULTS2 | {
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}


def _embedding_scale(config: Fields) -> dict[str, JSON]:
    if config.get("use_bidirectional_attention"):
        raise config.refuse("use_bidirectional_attention", "false: a text is read forward")
    return {"embedding_scale": config.integer("hidden_size") ** 0.5}


def switches(config: Fields) -> dict[str, JSON]:
    """Gemma 1's. Early files say ``gelu`` where its approximation by a tanh is meant."""
    found = _embedding_scale(config)
    return found | ({"activation": "gelu_tanh"} if config.get("hidden_act") == "gelu" else {})


def switches2(config: Fields) -> dict[str, JSON]:
    """Gemma 2's: the scale of attention apart from the width of heads, and caps that are not null.

    Raises:
        ModelError: naming the field.
    """
    scalar = config.number("query_pre_attn_scalar", low=1e-6, high=1e6)
    caps: Mapping[str, JSON] = {
        ours: config.number(theirs, low=1e-6, high=1e6)
        for ours, theirs in _CAPS.items()
        if config.get(theirs) is not None
    }
    return _embedding_scale(config) | {"attention_scale": scalar**-0.5, **caps}


def switches3(config: Fields) -> dict[str, JSON]:
    """Gemma 3's. Its attention has no cap in transformers, whatever a file says.

    Raises:
        ModelError: naming the field.
    """
    if config.get("attn_logit_softcapping") is not None:
        raise config.refuse("attn_logit_softcapping", "null")
    return switches2(config)


def windows2(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window of every other layer, the first one included, unless ``layer_types`` lists kinds."""
    return every_nth_is_full(config, num_layers, 2)


def windows3(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window of five in six layers, or as ``sliding_window_pattern`` or ``layer_types`` say."""
    pattern = config.integer("sliding_window_pattern") if "sliding_window_pattern" in config else 6
    return every_nth_is_full(config, num_layers, pattern)


def rope3(config: Fields) -> Rope:
    """Rotary settings of both kinds of layers; older files have ``rope_local_base_freq``."""
    local = "rope_local_base_freq"
    theta = config.number(local, low=1.0, high=1e12) if local in config else 10000.0
    return rope_of_two_kinds(config, sliding_theta=theta)


GEMMA = TextLayout(
    model_type="gemma",
    models="Gemma 1",
    tensors=llama.TENSORS,
    defaults=_DEFAULTS | {"hidden_act": _TANH, "num_key_value_heads": 16},
    fixed={"mlp_bias": False},
    switches=switches,
    norm_offset=1,
)

GEMMA2 = TextLayout(
    model_type="gemma2",
    models="Gemma 2",
    tensors=_BOTH_NORMS,
    defaults=_DEFAULTS2,
    fixed={"mlp_bias": False, "norms": "both"},
    windows=windows2,
    switches=switches2,
    activation="hidden_activation",
    norm_offset=1,
)

VAULT_GEMMA = TextLayout(
    model_type="vaultgemma",
    models="VaultGemma",
    tensors=llama.TENSORS
    | {"layers.{n}.ffn_norm.weight": "model.layers.{n}.pre_feedforward_layernorm.weight"},
    defaults=_DEFAULTS2,
    fixed={"mlp_bias": False},
    windows=windows2,
    switches=switches2,
    activation="hidden_activation",
    norm_offset=1,
)

GEMMA3 = TextLayout(
    model_type="gemma3_text",
    models="Gemma 3, text",
    tensors=_BOTH_NORMS | llama.QK_NORMS,
    defaults=_DEFAULTS3,
    fixed={"mlp_bias": False, "norms": "both", "qk_norm": "head"},
    windows=windows3,
    switches=switches3,
    rope=rope3,
    activation="hidden_activation",
    norm_offset=1,
)
