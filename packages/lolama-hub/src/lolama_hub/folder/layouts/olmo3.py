"""OLMo 3: OLMo 2 with a window in three of four layers, whose rotation is not stretched."""

from __future__ import annotations

from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.layouts import olmo2
from lolama_hub.folder.layouts.layout import TextLayout
from lolama_hub.folder.layouts.windows import every_nth_is_full, rope_of_two_kinds
from lolama_hub.folder.rope_config import Rope

_THETA = 500000.0

DEFAULTS: dict[str, JSON] = olmo2.DEFAULTS | {"rope_theta": _THETA, "sliding_window": 4096}


def windows(config: Fields, num_layers: int, _max_seq_len: int) -> dict[str, JSON]:
    """The window, of all but each fourth layer unless ``layer_types`` lists each layer's kind."""
    return every_nth_is_full(config, num_layers, 4)


def rope(config: Fields) -> Rope:
    """Rotary settings of both kinds of layers; ``rope_scaling`` is of those that see all."""
    return rope_of_two_kinds(config, sliding_theta=_THETA)


OLMO3 = TextLayout(
    model_type="olmo3",
    models="OLMo 3",
    tensors=olmo2.TENSORS,
    defaults=DEFAULTS,
    fixed=olmo2.FIXED,
    windows=windows,
    rope=rope,
)
