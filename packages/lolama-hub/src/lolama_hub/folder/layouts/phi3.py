"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: LLaMA with q, k and v in one tensor, and gate and up in another."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import llama
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.mistral import windows
from lolama_hub.folder.rope_config import Rope, read_rope

_QKV = "model.layers.{n}.self_attn.qkv_proj.weight"
_GATE_UP = "model.layers.{n}.mlp.gate_up_proj.weight"
# In the order in which the rows of a tensor hold them.
_FUSED = {
    "layers.{n}.attention.q_proj.weight": _QKV,
    "layers.{n}.attention.k_proj.weight": _QKV,
    "layers.{n}.attention.v_proj.weight": _QKV,
    "layers.{n}.feed_forward.w_gate.weight": _GATE_UP,
    "layers.{n}.feed_forward.w_up.weight": _GATE_UP,
}

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def rope(config: Fields) -> Rope:
    """Rotary settings, of a part of each head as well; ``su`` and ``yarn`` are old names of ``longrope``.

    Raises:
        ModelError: naming the field.
    """
    values = dict(config.values)
    for name in ("rope_scaling", "rope_parameters"):
        block = values.get(name)
        if isinstance(block, dict):
            values[name] = {
                key: "longrope" if value in _OLD_NAMES else value for key, value in block.items()
            }
    return read_rope(Fields(config.path, values, config.defaults), partial=True)


_OLD_NAMES = ("su", "yarn")

PHI3 = TextLayout(
    model_type="phi3",
    models="Phi-3, Phi-3.5, Phi-4, Phi-4-mini",
    tensors=llama.TENSORS | _FUSED,
    defaults=DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False},
    windows=windows,
    rope=rope,
)
