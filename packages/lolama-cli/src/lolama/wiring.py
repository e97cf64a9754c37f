"""Names → files → models and tokenizers: where the packages meet.

A name is looked up in this order:

1. a model that ships inside a package, such as ``demo``;
2. the directory of a lolama checkpoint;
3. whatever the model source makes of it: a folder in Hugging Face's layout, an alias, ``owner/name``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lolama_core
from lolama import downloads, providers, remembered
from lolama.downloads import Confirm, Progress
from lolama_core.protocols import CausalLM, CheckpointIO
from lolama_core.protocols.arguments import truth
from lolama_core.protocols.config_errors import naming_file
from lolama_core.protocols.errors import NetworkError, UsageError
from lolama_core.protocols.notices import unsupported
from lolama_core.protocols.types import (
    FORMAT_NAME,
    JSON,
    CanonicalConfig,
    ModelFiles,
    ModelInfo,
)

if TYPE_CHECKING:
    import torch

    from lolama.steps import Steps
    from lolama_core import Tokenizer
    from lolama_core.protocols.causal_module import CausalLMModule

LOADED_FROM = "loaded_from"
"""The attribute of a loaded model that tells the `ModelFiles` it came from, without their tensors."""

_AROUND_LLAMA = ("llama", "llava")
"""Families whose text model is a `Llama`."""


def load_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: bool = False,
    confirm: Confirm = None,
) -> CausalLMModule:
    """A model, ready to generate with.

    Args:
        name: ``demo``, the path of a model's folder, or an alias (``lolama models`` lists them).
        device: ``cpu``, ``cuda``, ``mps``; the best one here if not given.
        dtype: ``float32``, ``bfloat16``, ``float16``; what suits the device if not given.
        quantize: Store the linear weights as 8-bit integers. The int8 model is kept, and used again.
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
    quantize = truth("quantize", quantize)
    files = resolve(name, confirm=confirm)
    warn_unsupported(files)
    return load_files(quantized(files) if quantize else files, device=device, dtype=dtype)


def load_tokenizer(name: str | Path, *, confirm: Confirm = None) -> Tokenizer:
    """The tokenizer of a model, named as for `load_model`.

    Example:
        >>> load_tokenizer("demo").encode("Once upon a time", return_tensors="pt").shape[0]
        1
    """
    return tokenizer_of(resolve(name, confirm=confirm))


def resolve(
    name: str | Path,
    *,
    confirm: Confirm = None,
    progress: Progress | None = None,
    fetch: bool = True,
) -> ModelFiles:
    """What a name means. Headers and configurations are read, weights are not.

    A model that is not here is downloaded first, if ``confirm`` agrees (see `downloads`); without ``fetch``
    it is an error, and nothing is connected to.

    Raises:
        UsageError: if it means nothing, with the closest name that does, or if nobody agreed to a download.
        NetworkError, AuthorisationError: if it is not here and cannot be downloaded.
        ModelError: if the files cannot be used.
    """
    downloads.decision(confirm)  # a wrong one is refused, whether or not it will be asked
    name = str(name)
    builtins = builtin_models()
    if name in builtins:
        return replace(lolama_core.open_checkpoint(builtins[name], immutable=True), name=name)
    io = lolama_core.FileCheckpointIO()
    directory = _checkpoint_directory(name, io)
    if directory is not None:
        return replace(lolama_core.open_checkpoint(directory), name=name)
    try:
        source = providers.source()
        try:
            return source.resolve(name, io)
        except NetworkError:  # it is not here
            if not fetch:
                raise
            downloads.fetch(name, confirm=confirm, progress=progress, source=source)
        return source.resolve(name, io)
    except NetworkError as error:
        raise NetworkError(
            error.subject, error.reason, _and_builtins(error.remedy, builtins)
        ) from error
    except UsageError as error:
        close = get_close_matches(name.lower(), builtins, n=1, cutoff=0.6)
        if not close and "aliases" in error.remedy:  # of which the source does not know these
            remedy = _and_builtins(error.remedy, builtins)
            raise UsageError(error.subject, error.reason, remedy) from None
        if not close:
            raise
        raise UsageError(error.subject, error.reason, f"did you mean {close[0]}?") from None


def check(files: ModelFiles) -> None:
    """Refuse a model that its headers and configuration show cannot be built. torch is not imported.

    Raises:
        ModelError: naming the file, field or tensor.
        NotAvailableError: if no installed package builds it.
    """
    providers.family(files.family)
    if files.family in _AROUND_LLAMA:
        inside = "model" if files.family == "llama" else "model.text_config"
        with naming_file(files, inside):
            lolama_core.LlamaConfig.from_json(text_shape(files))
    lolama_core.FileCheckpoint(files)


def warn_unsupported(files: ModelFiles) -> None:
    """Warn whoever called the caller of settings that the model's authors ask for in vain."""
    if told := unsupported(files):
        warnings.warn(told, stacklevel=3)


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
    family = providers.family(files.family)
    with remembered.looked_through(files) as files:
        model = lolama_core.load_model(files, {family.name: family}, device=device, dtype=dtype)
    setattr(model, LOADED_FROM, replace(files, tensors={}))
    return model


def quantized(
    files: ModelFiles, *, tell: Callable[[str], None] | None = None, steps: Steps | None = None
) -> ModelFiles:
    """The int8 form of a model with the default options, kept from one use to the next."""
    from lolama.quantized import keep

    return keep(files, tell=tell, steps=steps)


def suit_threads(model: CausalLM) -> None:
    """Let a small model run on one thread; for programs, since it counts for the whole process."""
    lolama_core.suit_threads(model)


def tokenizer_of(files: ModelFiles) -> Tokenizer:
    """`load_tokenizer` for a name that is resolved already."""
    return lolama_core.load_tokenizer(files)


def tokenizer_text(files: ModelFiles) -> str | None:
    """The content of a model's ``tokenizer.json``; None if it has none.

    Raises:
        ModelError: if it cannot be read.
    """
    path = files.tokenizer.tokenizer_json
    return None if path is None else lolama_core.FileCheckpointIO().read_text(path)


def with_chat_template(files: ModelFiles, source: str) -> ModelFiles:
    """The same model, asked in another chat template (Jinja source); for `tokenizer_of`."""
    return replace(files, tokenizer=replace(files.tokenizer, chat_template=source))


def context_length(files: ModelFiles) -> int | None:
    """Positions that the model can attend over, as far as its configuration tells before it is built."""
    length = text_shape(files).get("max_seq_len")
    return length if isinstance(length, int) else None


def text_shape(files: ModelFiles) -> Mapping[str, JSON]:
    """The ``model`` block of the language model, which may stand inside that of a model that sees."""
    model = files.config["model"]
    inner = model.get("text_config")
    return inner if isinstance(inner, dict) else model


def builtin_models() -> dict[str, Path]:
    """Models that ship inside the installed packages: name → lolama checkpoint directory."""
    return {
        name: path
        for family in providers.families()
        for name, path in family.builtins.items()
        if path.is_dir()
    }


def known_models() -> list[ModelInfo]:
    """Every name that needs no path: what is built in, then the aliases."""
    built_in = [_describe(name, path) for name, path in builtin_models().items()]
    return [*built_in, *providers.source().list()]


def _checkpoint_directory(name: str, io: CheckpointIO) -> Path | None:
    """The directory ``name``, if it holds a configuration that calls itself lolama's."""
    path = Path(os.path.expanduser(name))
    try:
        if not name or not (path / "config.json").exists():
            return None
    except (OSError, ValueError):  # no possible file name: let the source say so
        return None
    return path if io.read_json(path / "config.json").get("format") == FORMAT_NAME else None


def _describe(name: str, path: Path) -> ModelInfo:
    io = lolama_core.FileCheckpointIO()
    config = cast(CanonicalConfig, io.read_json(path / "config.json"))
    # Near enough, and without reading the header: beside the weights the file holds a few kilobytes.
    bytes_each = 4 if config["dtype"] == "float32" else 2
    parameters = (path / "model.safetensors").stat().st_size / bytes_each
    # A model that sees has a text model inside. Asking its family for a processor would import torch.
    pictures = "text_config" in config["model"]
    return ModelInfo(
        alias=name,
        repo="",
        parameters=f"{parameters / 1e6:.1f}M",
        description="Built in: no download",
        kind="vision" if pictures else "text",
        license="MIT",
    )


def _and_builtins(remedy: str, builtins: dict[str, Path]) -> str:
    if not builtins:
        return remedy
    verb = "is" if len(builtins) == 1 else "are"
    return f"{remedy} ({' and '.join(builtins)} {verb} built in)"
