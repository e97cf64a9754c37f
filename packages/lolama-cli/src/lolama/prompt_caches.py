"""Files of what a model has read (`PrefixCache.save`), checked before its weights are."""

from __future__ import annotations

import os
from pathlib import Path

import lolama_core
from lolama import names
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import ModelFiles


def check_prompt_cache(path: Path, files: ModelFiles, cache_dtype: str | None) -> None:
    """Refuse a file that `PrefixCache.load` would refuse, as far as can be told without the weights.

    Args:
        path: The file; it may be missing.
        files: The model.
        cache_dtype: What its keys and values are stored in; None for its dtype.

    Raises:
        UsageError: if it is of a model with other sizes, or of another cache dtype; under dynamic
            RoPE or LongRoPE.
        ModelError: if it is no such file, or what it says of itself is damaged.
    """
    changed_by = names.keys_changed_by(files)
    if changed_by is not None:
        reason = f"has {changed_by}, so nothing that it has read can be kept"
        raise UsageError(files.name, reason, "leave out the prompt cache")
    if not os.path.lexists(path):
        return
    found, shape = lolama_core.read_prefix_file(path), names.text_shape(files)
    layers, width, heads = shape.get("num_layers"), shape.get("d_model"), shape.get("num_heads")
    # A family of another package may have a configuration of its own.
    if isinstance(layers, int) and isinstance(width, int) and isinstance(heads, int):
        kv_heads, head_dim = shape.get("num_kv_heads"), shape.get("head_dim")
        found.check_layers(
            layers,
            kv_heads if isinstance(kv_heads, int) else heads,
            head_dim if isinstance(head_dim, int) else width // heads,
        )
    found.check_cache_dtype(cache_dtype)
