"""Each switch of `LlamaConfig` in a case, for whatever runs models: it must know a switch, or decline it."""

from __future__ import annotations

from typing import Any

SWITCHED: dict[str, dict[str, Any]] = {
    "norm of each head": {"qk_norm": "head"},
    "norm of all heads": {"qk_norm": "width"},
    "window in some layers": {"sliding_window": 7, "sliding_layers": [0, 2]},
}
"""What is asked for → the fields of a `LlamaConfig` of three layers or more."""
