"""Any model that lolama can load → a lolama checkpoint of one's own, or a GGUF file for llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import lolama_core
import lolama_hub
from lolama import names
from lolama.downloads import Confirm, Progress
from lolama.files import is_same
from lolama.steps import Steps, counted
from lolama_core.protocols.errors import UsageError, exists_already

if TYPE_CHECKING:
    from lolama_core.protocols.types import ModelFiles


def convert(
    name: str | Path,
    output: Path,
    *,
    outtype: str | None = None,
    force: bool = False,
    confirm: Confirm = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    steps: Steps | None = None,
) -> None:
    """Write a model as a lolama checkpoint: canonical names, one file of weights, on its own.

    The tensors keep their dtype and every bit; they are written one at a time, so the model need not fit
    into memory. The folder appears when it is whole. An ``output`` that ends in ``.gguf`` is a file for
    llama.cpp instead.

    Args:
        name: As for `load_model`.
        output: Must not exist, unless ``force``; its parent must.
        outtype: The type of a file's weights: ``f32``, ``f16``, ``bf16`` or ``q8_0``. By default the 16 bits
            that the model has, or bf16. Norms and biases are float32.
        force: Replace the file, or the lolama checkpoint, that is there.
        confirm: Whether a download may go ahead, if one is needed; see `downloads.Confirm`.
        progress: Is told of the progress of that download.
        tell: Receives a line about what a file has no place for.
        steps: Is told how many tensors are written.

    Raises:
        UsageError: if ``output`` exists or cannot be made; for a model that is quantized already, as a file.
        ModelError: if the model's files cannot be used, or GGUF has no place for the model.
        ResourceError: if the disk is full, or read-only.
    """
    is_file = output.name.lower().endswith(".gguf")
    # Said before anything is downloaded; the writer holds to it too.
    if outtype is not None and not is_file:
        raise UsageError("outtype", "is for a .gguf file", "leave it out, or name such a file")
    if outtype is not None and outtype not in lolama_hub.OUTTYPES:
        known = ", ".join(lolama_hub.OUTTYPES)
        raise UsageError("outtype", f"{outtype!r:.40} is no type of weights here", f"use {known}")
    if os.path.lexists(output) and not force:
        raise exists_already(output, "add `force=True`")
    files = names.resolve(name, confirm=confirm, progress=progress)
    if is_file:
        if any(is_same(output, one.path) for one in files.tensors.values()):
            raise UsageError(str(output), "is the file of the model itself", "choose another name")
        _write_gguf(files, output, outtype, force=force, tell=tell, steps=steps)
        return
    lolama_core.write_checkpoint(
        output,
        files.config,
        counted(lolama_core.FileCheckpoint(files).tensors(), len(files.tensors), steps),
        tokenizer_json=names.tokenizer_text(files),
        chat_template=files.tokenizer.chat_template,
        replace=force,
    )


def _write_gguf(
    files: ModelFiles,
    path: Path,
    outtype: str | None,
    *,
    force: bool,
    tell: Callable[[str], None] | None,
    steps: Steps | None,
) -> None:
    if files.family != "llama":
        reason = "is a model that sees, which is not written as a .gguf file"
        raise UsageError(files.name, reason, "write a folder")
    if "quantization" in files.config:
        raise UsageError(files.name, "is quantized already", "convert the model it was made from")
    if files.tokenizer.tokenizer_json is not None:
        lolama_core.load_tokenizer(files)  # says what is wrong with a damaged one
    module = lolama_core.build_module(files, lolama_core.installed_families())
    everything = module.state_dict()
    shapes = {one: tuple(everything[one].shape) for one in files.tensors}
    content = lolama_hub.as_gguf(
        files,
        shapes,
        lambda block: lolama_core.LlamaConfig.from_json(block).to_json(),
        lolama_core.FileCheckpointIO(),
        outtype,
    )
    if content.left_out and tell is not None:
        tell(f"{path.name} has no place for {', '.join(content.left_out)}")
    tensors = counted(lolama_core.FileCheckpoint(files).tensors(), len(files.tensors), steps)
    lolama_core.write_gguf(
        path, content.metadata, content.tensors, content.parts(tensors), replace=force
    )
