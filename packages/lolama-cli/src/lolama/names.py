"""Names → files: what a model's name means, and what its files tell before anything is loaded.

A name is looked up in this order:

1. a model that ships inside a package, such as ``demo``;
2. the directory of a lolama checkpoint;
3. whatever the model source makes of it: a folder in Hugging Face's layout, an alias, ``owner/name``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import cast

import lolama_core
from lolama import downloads
from lolama.downloads import Confirm, Progress
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import NetworkError, UsageError
from lolama_core.protocols.source import ModelInfo
from lolama_core.protocols.types import FORMAT_NAME, JSON, CanonicalConfig, ModelFiles


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
        source = lolama_core.installed_source()
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


def builtin_models() -> dict[str, Path]:
    """Models that ship inside the installed packages: name → lolama checkpoint directory."""
    return {
        name: path
        for family in lolama_core.installed_families().values()
        for name, path in family.builtins.items()
        if path.is_dir()
    }


def known_models() -> list[ModelInfo]:
    """Every name that needs no path: what is built in, then the aliases."""
    built_in = [_describe(name, path) for name, path in builtin_models().items()]
    return [*built_in, *lolama_core.installed_source().list()]


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
    return _context_length(files.config)


def text_shape(files: ModelFiles) -> Mapping[str, JSON]:
    """The ``model`` block of the language model, which may stand inside that of a vision model."""
    return _text_shape(files.config)


def keys_changed_by(files: ModelFiles) -> str | None:
    """What changes the keys that the language model holds of a text as that grows; None for nothing."""
    scaling = text_shape(files).get("rope_scaling")
    kind = scaling.get("type") if isinstance(scaling, dict) else None
    return {"dynamic": "dynamic RoPE", "longrope": "LongRoPE"}.get(str(kind))


def _context_length(config: CanonicalConfig) -> int | None:
    length = _text_shape(config).get("max_seq_len")
    return length if isinstance(length, int) else None


def _text_shape(config: CanonicalConfig) -> Mapping[str, JSON]:
    inner = config["model"].get("text_config")
    return inner if isinstance(inner, dict) else config["model"]


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
    # A vision model has a text model inside. Asking its family for a processor would import torch.
    pictures = "text_config" in config["model"]
    return ModelInfo(
        alias=name,
        repo="",
        parameters=f"{parameters / 1e6:.1f}M",
        description="Built in: no download",
        kind="vision" if pictures else "text",
        license="MIT",
        context=_context_length(config) or 0,
    )


def _and_builtins(remedy: str, builtins: dict[str, Path]) -> str:
    if not builtins:
        return remedy
    verb = "is" if len(builtins) == 1 else "are"
    return f"{remedy} ({' and '.join(builtins)} {verb} built in)"
