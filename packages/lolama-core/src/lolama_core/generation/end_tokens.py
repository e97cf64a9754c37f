"""Which tokens end a text. `Request.step` looks for them, and an end token is not given out."""

from __future__ import annotations

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols import Tokenizer
from lolama_core.protocols.types import GenerationDefaults


def end_ids(
    defaults: GenerationDefaults, tokenizer: Tokenizer | None, config: GenerationConfig
) -> frozenset[int]:
    """The end tokens of a model's files and those of its tokenizer; none with ``ignore_eos``."""
    if config.ignore_eos:
        return frozenset()
    return defaults.eos_ids | (frozenset() if tokenizer is None else tokenizer.eos_ids)
