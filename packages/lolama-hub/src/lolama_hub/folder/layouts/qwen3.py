"""Qwen3, dense: Qwen2 without its biases, with a norm of queries and keys over each head."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts import llama, qwen2
from lolama_hub.folder.layouts.layout import TextLayout

DEFAULTS: dict[str, JSON] = qwen2.DEFAULTS | {"head_dim": 128}

QWEN3 = TextLayout(
    model_type="qwen3",
    models="Qwen3 0.6B to 32B",
    tensors=llama.TENSORS | llama.QK_NORMS,
    defaults=DEFAULTS,
    fixed={"mlp_bias": False, "qk_norm": "head"},
    windows=qwen2.windows,
)
