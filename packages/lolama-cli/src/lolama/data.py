"""Models and tokenizers by name: ``from lolama.data import load_model, load_tokenizer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lolama.wiring import load_files, load_model, load_tokenizer, resolve
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["load_llava_model", "load_model", "load_tokenizer"]


def load_llava_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> CausalLM:
    """`load_model` for a model that must see pictures. No package builds one in this version.

    Raises:
        NotAvailableError: for a model that sees pictures.
        UsageError: for one that does not.
    """
    files = resolve(name)
    if files.family != "llava":
        raise UsageError(files.name, "is a text model, it sees no pictures", "use load_model")
    return load_files(files, device=device, dtype=dtype)
