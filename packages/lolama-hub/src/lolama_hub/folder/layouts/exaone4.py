"""EXAONE 4: norms as OLMo 2 has them, one of each head, and no rotation in layers that see all."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import olmo2
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import every_nth_is_full

DEFAULTS: dict[str, JSON] = olmo2.DEFAULTS | {
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
}


def windows(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window of ``layer_types``, or of all but the last of ``sliding_window_pattern`` layers.

    Where there is a window, layers without it do not rotate.

    Raises:
        ModelError: naming the field.
    """
    if config.optional_integer("sliding_window") is None:
        return {"sliding_window": None}
    listed = config.get("layer_types") is not None
    interval = 1 if listed else config.integer("sliding_window_pattern")
    found = every_nth_is_full(config, num_layers, interval)
    sliding = found.get("sliding_layers", [])
    assert isinstance(sliding, list)
    if found["sliding_window"] is not None and not sliding:
        return found  # all layers have it
    full: list[JSON] = [layer for layer in range(num_layers) if layer not in sliding]
    return found | {"unrotated_layers": full}


EXAONE4 = TextLayout(
    model_type="exaone4",
    models="EXAONE 4",
    tensors=olmo2.TENSORS,
    defaults=DEFAULTS,
    fixed={"attention_bias": False, "mlp_bias": False, "norms": "after", "qk_norm": "head"},
    windows=windows,
)
