"""Files → models and tokenizers: where the packages meet."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lolama_core
from lolama import file_facts, names
from lolama.bits import Quantize, number_of_bits
from lolama.downloads import Confirm
from lolama_core.protocols import CausalLM
from lolama_core.protocols.config_errors import naming_file
from lolama_core.protocols.notices import unsupported
from lolama_core.protocols.types import ModelFiles

if TYPE_CHECKING:
    import torch

    from lolama.steps import Steps
    from lolama_core import Tokenizer
    from lolama_core.protocols.causal_module import CausalLMModule

LOADED_FROM = "loaded_from"
"""The attribute of a loaded model that tells the `ModelFiles` it came from, without their tensors."""

_AROUND_TEXT = ("llama", "llava")
"""Families whose text model is a `Llama`, unless its block names another family."""

_IN_NAMES = (
    *("resolve", "builtin_models", "known_models", "tokenizer_text", "with_chat_template"),
    *("context_length", "text_shape"),
)
"""Functions that were here in 0.1."""


def load_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: Quantize = False,
    confirm: Confirm = None,
) -> CausalLMModule:
    """A model, ready to generate with.

    Args:
        name: ``demo``, the path of a model's folder, or an alias (``lolama models`` lists them).
        device: ``cpu``, ``cuda``, ``mps``; the best one here if not given.
        dtype: ``float32``, ``bfloat16``, ``float16``; what suits the device if not given.
        quantize: Store the linear weights as integers of 8 bits (True), or 4 for fewer: see `quantized`.
        confirm: Whether a model that is not here may be downloaded: True, or a function of the
            `DownloadPlan`; if not given, the user is asked on the terminal.

    Raises:
        UsageError: for a name that means nothing, a device or dtype that is not to be had, or a download
            that nobody agreed to.
        NetworkError, AuthorisationError: if the model is not here and cannot be downloaded.
        NotAvailableError: if the package that the model needs is not installed.
        ModelError: if the files cannot be used.
        ResourceError: if the model does not fit into memory.

    Example:
        >>> model = load_model("demo")
    """
    bits = number_of_bits(quantize)
    files = names.resolve(name, confirm=confirm)
    warn_unsupported(files)
    return load_files(quantized(files, bits), device=device, dtype=dtype)


def load_tokenizer(name: str | Path, *, confirm: Confirm = None) -> Tokenizer:
    """The tokenizer of a model, named as for `load_model`.

    Example:
        >>> load_tokenizer("demo").encode("Once upon a time", return_tensors="pt").shape[0]
        1
    """
    return tokenizer_of(names.resolve(name, confirm=confirm))


def check(files: ModelFiles) -> None:
    """Refuse a model that its headers and configuration show cannot be built. torch is not imported.

    Raises:
        ModelError: naming the file, field or tensor.
        NotAvailableError: if no installed package builds it.
    """
    lolama_core.installed_family(files.family, files.name)
    shape = names.text_shape(files)
    if files.family in _AROUND_TEXT and "family" not in shape:
        inside = "model" if files.family == "llama" else "model.text_config"
        with naming_file(files, inside):
            lolama_core.LlamaConfig.from_json(shape)
    lolama_core.FileCheckpoint(files)


def warn_unsupported(files: ModelFiles) -> None:
    """Warn whoever called the caller of settings that the model's authors ask for in vain."""
    if notice := unsupported(files):
        warnings.warn(notice, stacklevel=3)


def import_torch() -> None:
    """Import torch, and what builds models with it: seconds that belong to no model, timed with none."""
    _ = lolama_core.load_model


def load_files(
    files: ModelFiles,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> CausalLMModule:
    """`load_model` for a name that is resolved already."""
    families = lolama_core.installed_families()
    with file_facts.looked_through(files) as files:
        model = lolama_core.load_model(files, families, device=device, dtype=dtype)
    setattr(model, LOADED_FROM, replace(files, tensors={}))
    return model


def quantized(
    files: ModelFiles,
    bits: int = 8,
    *,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> ModelFiles:
    """The form of a model whose weights have 8 or 4 bits, kept from one use to the next.

    Four bits that were fitted to text (``lolama quantize --bits 4``) are used if they are kept. Else they are
    made without, since fitting takes many times as long.

    Args:
        files: The model.
        bits: 8 or 4; with 0 it stays as it is.
        tell, steps: As for `quantize.keep`.
    """
    if not bits:
        return files
    from lolama.quantize import kept_or_quick

    return kept_or_quick(files, bits, tell=tell, steps=steps)


def scheme_of(model: CausalLM) -> str | None:
    """Name of the scheme that a model from `load_files` is quantized by; None if it is not."""
    files: ModelFiles = getattr(model, LOADED_FROM)
    name = files.config.get("quantization", {}).get("name")
    return None if name is None else str(name)


def suit_threads(model: CausalLM) -> None:
    """Let a small model run on one thread; for programs, since it counts for the whole process."""
    lolama_core.suit_threads(model)


def tokenizer_of(files: ModelFiles) -> Tokenizer:
    """`load_tokenizer` for a name that is resolved already."""
    return lolama_core.load_tokenizer(files)


def __getattr__(name: str) -> Any:
    if name not in _IN_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"lolama.wiring.{name} has moved: use lolama.names.{name}; the old name goes with version 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(names, name)
