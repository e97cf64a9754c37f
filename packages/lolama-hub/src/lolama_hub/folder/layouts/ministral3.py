"""Ministral 3: Mistral with queries that grow with their position, and yarn."""

from __future__ import annotations

from dataclasses import replace

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.mistral import windows
from lolama_hub.folder.rope_config import Rope, read_rope

_BETA = "llama_4_scaling_beta"

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
_ROPE: dict[str, JSON] = {
    "type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    _BETA: 0.1,
}


def rope(config: Fields) -> Rope:
    """Rotary settings, and by how much queries grow.

    Raises:
        ModelError: naming the field.
    """
    given = config.get("rope_parameters")
    block = _ROPE if given is None else given
    values = {**config.values, "rope_parameters": block}
    found = read_rope(Fields(config.path, values, config.defaults))
    settings = Fields(
        config.path, block if isinstance(block, dict) else {}, block="rope_parameters"
    )
    beta = settings.number(_BETA, low=0.0, high=1e6)
    length = settings.integer("original_max_position_embeddings")
    if not beta:
        return found
    return replace(found, switches={"query_scale_beta": beta, "query_scale_length": length})


MINISTRAL3 = TextLayout(
    model_type="ministral3",
    models="Ministral 3, text",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False},
    windows=windows,
    rope=rope,
)
