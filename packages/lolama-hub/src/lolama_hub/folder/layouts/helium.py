"""Helium: LLaMA whose rotated pairs stand side by side."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts import glm, llama
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = llama.DEFAULTS | {
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 20,
    "rms_norm_eps": 1e-8,
    "rope_theta": 100000.0,
}

HELIUM = TextLayout(
    model_type="helium",
    models="Helium 1",
    tensors=llama.TENSORS,
    defaults=DEFAULTS,
    switches=glm.switches,
    interleaved=True,
)
