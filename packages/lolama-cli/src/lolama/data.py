"""Models and tokenizers by name: ``from lolama.data import load_model, load_tokenizer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from lolama.bits import Quantize, number_of_bits
from lolama.downloads import Confirm
from lolama.names import resolve
from lolama.wiring import (
    load_files,
    load_model,
    load_tokenizer,
    quantized,
    warn_unsupported,
)
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.lazy_names import directory

if TYPE_CHECKING:
    import torch

    from lolama_vision import LLaVA

__all__ = ["load_llava_model", "load_model", "load_tokenizer"]
__dir__ = directory(__name__, __all__)


def load_llava_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: Quantize = False,
    confirm: Confirm = None,
) -> LLaVA:
    """`load_model` for a vision model.

    Raises:
        UsageError: for a text model; else as `load_model`.

    Example:
        >>> model = load_llava_model("demo-vision")
        >>> model.config.vision_config.image_size
        96
    """
    bits = number_of_bits(quantize)
    files = resolve(name, confirm=confirm)
    if files.family != "llava":
        raise UsageError(files.name, "is a text model, it sees no pictures", "use load_model")
    warn_unsupported(files)
    return cast("LLaVA", load_files(quantized(files, bits), device=device, dtype=dtype))
