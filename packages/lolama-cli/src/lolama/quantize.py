"""Models of eight or four bits: made from another, saved where someone wants them, or kept and found again.

A kept model is found by what it was made from: the contents of the source's files and the options. Its name
and place do not matter, so a folder that was moved is not quantized again, and one whose files changed is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import lolama_core
import lolama_quant
from lolama import names
from lolama.calibration import calibrated_blocks, linears_inside_blocks
from lolama.file_facts import source_digest
from lolama.files import expanded, is_same
from lolama.kept import KIND, discard_damaged, opened, source_of
from lolama.quantize_options import Options, key_of, scheme_of
from lolama.requantize import with_what_is_made
from lolama.steps import Steps, counted, named
from lolama.unfinished import unfinished
from lolama.untied import untied
from lolama_core.protocols import CausalLM, Tokenizer
from lolama_core.protocols.errors import ModelError, UsageError, exists_already
from lolama_core.protocols.types import FORMAT_NAME, JSON, CanonicalConfig, ModelFiles
from lolama_hub import Store

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_quant import QualityReport

__all__ = [
    "Options",
    "QualityReport",
    "Saved",
    "describe",
    "keep",
    "measure",
    "save",
    "source_digest",
]


def __getattr__(name: str) -> object:
    if name == "QualityReport":  # here alone, since it needs torch
        return lolama_quant.QualityReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A quantized model on disk.

    Attributes:
        directory: Where.
        replaced: Names of the layers that are quantized.
        source_bytes, bytes: Size of all tensors before and after.
    """

    directory: Path
    replaced: tuple[str, ...]
    source_bytes: int
    bytes: int


def keep(
    files: ModelFiles,
    options: Options | None = None,
    *,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> ModelFiles:
    """The quantized form of a model, out of lolama's own store; made and kept there if it is not yet.

    Args:
        files: The model; one that is quantized already is handed back.
        options: The defaults if not given.
        force: Make it again even if it is there.
        tell: Receives a line before the model is made, which takes a while, and those of `save`.
        steps: Is told how many documents are read to find outliers, then how many tensors are written.

    Raises:
        ModelError: if the model cannot be used.
        ResourceError: if it cannot be kept.
    """
    options = options or Options()
    if options.is_done(files):
        return files
    place = _place(files, options)
    if force or not place.exists() or not options.fits(opened(files, place)):
        if tell is not None:
            tell(f"quantizing {files.name} to int{options.bits}, to be kept in {place}")
        try:
            source = replace(files, config=_with_source(files, name=source_of(files)))
            replaced = force or place.exists()
            digest = source_digest(files)
            if force:
                discard_damaged(place)
            _write(source, place, options, digest, force=replaced, tell=tell, steps=steps)
        except UsageError:
            if not place.exists():  # else another process was faster
                raise
    return opened(files, place)


def kept_or_quick(
    files: ModelFiles,
    bits: int,
    *,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> ModelFiles:
    """A form of 8 or 4 bits, kept: one that was fitted to any text if there is one, else one made quickly.

    Args:
        files, tell, steps: As for `keep`.
        bits: 8 or 4.
    """
    options = Options(bits=bits)
    scheme = files.config.get("quantization", {}).get("name")
    if tell is not None and scheme not in (None, f"int{bits}") and options.is_done(files):
        tell(f"{files.name} is quantized already, by {scheme}, and stays so")
    if bits == 4 and scheme is None:
        if (fitted := _place(files, options)).exists():
            return opened(files, fitted)
        options = replace(options, calibration=False)
        if tell is not None and not _place(files, options).exists():
            tell(
                "made without calibration; `lolama quantize` with 4 bits takes longer, and is truer"
            )
    return keep(files, options, tell=tell, steps=steps)


def save(
    files: ModelFiles,
    directory: Path,
    options: Options | None = None,
    *,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> ModelFiles:
    """Write the quantized form of a model to ``directory``: all of it or nothing.

    Args:
        files: The model.
        directory: Must not exist, unless ``force`` replaces the quantized model that is there.
        options: The defaults if not given.
        force: Replace what is there.
        tell: Receives a line about text that is too short for some linears.
        steps: As for `keep`.

    Raises:
        UsageError: if the model is quantized already, or the directory exists, is the model's own, or has the
            name of a GGUF file.
        ModelError: if the model cannot be used.
        ResourceError: if the disk is full.
    """
    options = options or Options()
    if options.is_done(files):
        raise UsageError(files.name, "is quantized already", "quantize the model it was made from")
    directory = expanded(directory)
    if directory.name.lower().endswith(".gguf"):
        reason = "is the name of a GGUF file, and what is written is a folder"
        raise UsageError(str(directory), reason, "choose another name, or use `lolama convert`")
    if any(is_same(directory, source.path.parent) for source in files.tensors.values()):
        raise UsageError(
            str(directory), "is the folder of the model itself", "choose another with `directory`"
        )
    if os.path.lexists(directory) and not force:
        # The writer says so too, but only after the source's files were read.
        raise exists_already(directory, "add `force=True`")
    if force and _is_full_precision(directory):
        reason = "is a model that is not quantized, so it is not replaced"
        raise UsageError(str(directory), reason, "choose another name")
    digest = source_digest(files)
    _write(files, directory, options, digest, force=force, tell=tell, steps=steps)
    return lolama_core.open_checkpoint(directory)


def _place(files: ModelFiles, options: Options) -> Path:
    """Where a quantized form is kept. The same model under another name is the same model."""
    digest = source_digest(files)
    return Store().place(KIND, files.family, {"source": digest, **key_of(files, options)})


def describe(source: ModelFiles, files: ModelFiles) -> Saved:
    """What there is to say about a saved quantized model, from headers alone."""
    declared = cast("dict[str, str]", files.config.get("quantization", {}).get("tensors", {}))
    return Saved(
        directory=next(iter(files.tensors.values())).path.parent,
        replaced=tuple(
            sorted(name.removesuffix(".weight") for name in declared if name.endswith(".weight"))
        ),
        source_bytes=_tensor_bytes(source),
        bytes=_tensor_bytes(files),
    )


def measure(
    dense: CausalLM,
    quantized: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str] | None = None,
    steps: Steps | None = None,
    cache_dtype: Literal["int8"] | None = None,
) -> QualityReport:
    """What quantizing cost, on ``texts`` or the text that ships with lolama-quant.

    Keys and values of both models are stored in ``cache_dtype``.
    """
    texts = texts or lolama_quant.default_text()
    read = partial(lolama_core.prompt_logits, cache_dtype=cache_dtype)
    return lolama_quant.measure_quality(dense, quantized, tokenizer, texts, steps, read=read)


def _write(
    files: ModelFiles,
    directory: Path,
    options: Options,
    digest: str,
    *,
    force: bool,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None,
) -> None:
    """Tensor by tensor, so that the model need not fit into memory."""
    # What no package builds is refused before torch is imported.
    family = lolama_core.installed_family(files.family, files.name)
    source, left = files, options.left(files)
    if options.unties and (not left or "lm_head" in left):
        files = untied(files)
    scheme = scheme_of(files, options, steps)
    quantizer = lolama_core.installed_quantizer(scheme.name)
    module = lolama_core.build_module(files, {family.name: family})
    quantizer.prepare_(module, scheme)
    made_of: dict[str, JSON] = {"sha256": digest, "text": options.text_digest}
    config = _with_source(files, repo=files.repo, revision=files.revision, **made_of)
    config["quantization"] = lolama_core.quantization_block(scheme, quantizer.declared(module))

    def write(fitted: Iterable[tuple[str, Tensor]], tensors: Iterable[tuple[str, Tensor]]) -> None:
        lolama_core.write_checkpoint(
            directory,
            config,
            chain(fitted, with_what_is_made(files, quantizer, module, tensors)),
            tokenizer_json=names.tokenizer_text(files),
            chat_template=files.tokenizer.chat_template,
            replace=force,
        )

    tensors = lolama_core.FileCheckpoint(files).tensors()
    if options.bits == 8 or not options.calibration or left:
        write((), counted(tensors, len(files.tensors), steps))
        return
    inside = linears_inside_blocks(module)
    others = (one for one in tensors if one[0].removesuffix(".weight") not in inside)
    first = named(steps, "writing it in eight bits")
    in_int8 = partial(_write, source, options=Options(), digest=digest, force=True, steps=first)
    with unfinished(files, {**made_of, **key_of(files, options)}) as made:
        blocks = calibrated_blocks(
            files, inside, options.text, made, write_int8=in_int8, tell=tell, steps=steps
        )
        write(blocks, others)


def _with_source(files: ModelFiles, **facts: JSON) -> CanonicalConfig:
    """The configuration, with these facts about what the quantized model is made from."""
    config = cast(CanonicalConfig, dict(files.config))
    config["source"] = {**files.config.get("source", {}), **facts}
    return config


def _tensor_bytes(files: ModelFiles) -> int:
    io = lolama_core.FileCheckpointIO()
    headers = {path: io.header(path) for path in {one.path for one in files.tensors.values()}}
    # One that several are parts of counts once.
    keys = {(one.path, one.key) for one in files.tensors.values()}
    entries = [headers[path][key] for path, key in keys]
    return sum(entry.end - entry.begin for entry in entries)


def _is_full_precision(directory: Path) -> bool:
    """Whether it is a lolama checkpoint, and may be the only one with these weights."""
    try:
        config = lolama_core.FileCheckpointIO().read_json(directory / "config.json")
    except ModelError:
        return False
    return config.get("format") == FORMAT_NAME and "quantization" not in config
