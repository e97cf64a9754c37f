"""``--image``: from paths and standard input to what a vision model takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lolama.prompts import sees_none
from lolama_cli.console import note
from lolama_cli.standard_input import read_standard_input
from lolama_core.protocols.errors import ModelError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lolama.command_prompts import PreparedImages
    from lolama_core.protocols import ImageProcessor
    from lolama_core.protocols.types import ImageInputs, ModelFiles

OPTION = "--image"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)
_MOST = 64
_MOST_BYTES = 256 * 2**20  # one more is enough for the reader to refuse it


def check_names(names: Sequence[str], *, prompt_from_stdin: bool) -> None:
    """Refuse what can be refused before any file is opened.

    Raises:
        UsageError: for a URL, for standard input asked for twice, or for too many pictures.
    """
    for name in names:
        if _URL.match(name):
            reason = f"{name[:80]!r} is a URL, and a prompt makes no connections"
            raise UsageError(OPTION, reason, "download the picture and give its path")
        if not name:
            other = "" if prompt_from_stdin else ", or -"
            raise UsageError(OPTION, "is empty", f"give the path of a picture{other}")
    if list(names).count("-") > 1:
        raise UsageError(OPTION, "- stands for standard input, which can be read once", "")
    if "-" in names and prompt_from_stdin:
        reason = "- and the prompt cannot both come from standard input"
        raise UsageError(OPTION, reason, "give the prompt as an argument")
    if len(names) > _MOST:
        raise UsageError(OPTION, f"{len(names)} pictures, more than {_MOST}", "give fewer")


def prepare_images(
    files: ModelFiles, names: Sequence[str], mode: str | None
) -> PreparedImages | None:
    """Read and prepare the pictures; None for a text model, which is shown none.

    Raises:
        UsageError: for pictures, or a mode of preparing them, with a text model.
        ModelError: naming the picture that cannot be used.
    """
    from lolama.command_prompts import PreparedImages
    from lolama.vision import processor_of

    processor = processor_of(files, mode if names else None)
    if processor is None:
        if names:
            remedy = "use a vision model, such as -m demo-vision"
            raise sees_none(OPTION, len(names), files.name, remedy)
        return None
    return PreparedImages(files, _prepare(processor, names))


def read_pictures(names: Sequence[str]) -> Iterator[tuple[str, bytes, Image]]:
    """Pictures one after another: what errors call it, its file, and its pixels.

    Raises:
        UsageError: if standard input has none.
        ModelError: naming the picture that cannot be used.
    """
    if not names:  # which spares importing Pillow
        return
    from lolama.vision import read_picture

    for name in names:
        subject = "standard input" if name == "-" else name
        source = _standard_input() if name == "-" else Path(name)
        picture = read_picture(source, subject)
        if picture.notice:
            note(f"note: {picture.notice}")
        yield subject, source if isinstance(source, bytes) else source.read_bytes(), picture.image


def _prepare(processor: ImageProcessor, names: Sequence[str]) -> ImageInputs:
    read = [(subject, image) for subject, _, image in read_pictures(names)]
    try:
        return processor.preprocess([image for _, image in read])
    except ModelError as error:
        subjects = ", ".join(subject for subject, _ in read)
        raise ModelError(subjects, error.reason, error.remedy) from None


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise UsageError("standard input", "is closed", "pipe a picture in, or give its path")
    if sys.stdin.isatty():
        raise UsageError("standard input", "is a terminal", "pipe a picture in")
    return read_standard_input(
        _MOST_BYTES,
        "give the path of a picture",
        silent="note: waiting for a picture on standard input",
    )
