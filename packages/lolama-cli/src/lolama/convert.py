"""Any model that lolama can load → a lolama checkpoint of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import lolama_core
from lolama import names
from lolama.downloads import Confirm, Progress
from lolama.steps import Steps, counted
from lolama_core.protocols.errors import exists_already


def convert(
    name: str | Path,
    directory: Path,
    *,
    confirm: Confirm = None,
    progress: Progress | None = None,
    steps: Steps | None = None,
) -> None:
    """Write a model as a lolama checkpoint: canonical names, one file of weights, on its own.

    The tensors keep their dtype and every bit; they are written one at a time, so the model need not fit
    into memory. The directory appears when it is whole.

    Args:
        name: As for `load_model`.
        directory: Must not exist; its parent must.
        confirm: Whether a download may go ahead, if one is needed; see `downloads.Confirm`.
        progress: Is told of the progress of that download.
        steps: Is told how many tensors are written.

    Raises:
        UsageError: if ``directory`` exists or cannot be made.
        ModelError: if the model's files cannot be used.
        ResourceError: if the disk is full, or read-only.
    """
    if os.path.lexists(directory):
        # Said before anything is downloaded; the writer holds to it too.
        raise exists_already(directory)
    files = names.resolve(name, confirm=confirm, progress=progress)
    lolama_core.FileCheckpointIO().write(
        directory,
        files.config,
        counted(lolama_core.FileCheckpoint(files).tensors(), len(files.tensors), steps),
        tokenizer_json=names.tokenizer_text(files),
        chat_template=files.tokenizer.chat_template,
    )
