"""Each switch of `LlamaConfig` in a case, for whatever runs models: it must know a switch, or decline it."""

from __future__ import annotations

from typing import Any

SWITCHED: dict[str, dict[str, Any]] = {
    "norm of each head": {"qk_norm": "head"},
    "norm of all heads": {"qk_norm": "width"},
    "window in some layers": {"sliding_window": 7, "sliding_layers": [0, 2]},
    "rotation of its own in layers with a window": {
        "sliding_window": 7,
        "sliding_layers": [0, 1],
        "sliding_rope_base": 300.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16},
    },
    "no rotation in some layers": {"unrotated_layers": [1]},
    "some dimensions rotated": {"rotary_dim": 4},
    "gelu": {"activation": "gelu"},
    "gelu by tanh": {"activation": "gelu_tanh"},
    "norms after": {"norms": "after"},
    "norms before and after": {"norms": "both"},
    "scales": {
        "embedding_scale": 3.0,
        "residual_scale": 0.4,
        "attention_scale": 0.7,
        "logit_divisor": 3.0,
    },
    "softcaps": {"attention_softcap": 2.0, "logit_softcap": 1.5},
    "experts": {
        "num_experts": 8,
        "experts_per_token": 2,
        "expert_dim": 24,
        "normalize_expert_weights": True,
    },
    "experts beside a shared one, in some layers": {
        "num_experts": 5,
        "experts_per_token": 3,
        "expert_dim": 16,
        "shared_expert_dim": 32,
        "dense_layers": [1],
    },
    "queries by position": {"query_scale_beta": 0.5, "query_scale_length": 4},
}
"""What is asked for → the fields of a `LlamaConfig` of three layers or more."""
