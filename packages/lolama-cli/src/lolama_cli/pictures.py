"""``--image``: from paths and standard input to what a vision model takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lolama.prompts import sees_none
from lolama_cli.console import note
from lolama_cli.standard_input import read_standard_input
from lolama_core.protocols.errors import ModelError, UsageError

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class PreparedImages:
    """The pictures of a prompt, ready for the model.

    Attributes:
        files: The model's files.
        inputs: What its image processor made of them.
    """

    files: ModelFiles
    inputs: ImageInputs

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.inputs["tokens_per_image"])

    @property
    def model_inputs(self) -> Mapping[str, Any]:
        """What the model is given beside ids: nothing, if nothing is shown."""
        return cast("Mapping[str, Any]", self.inputs) if self.count else {}

    @property
    def progress(self) -> str:
        """What there is to wait for."""
        return (
            f"encoding {self.count} picture{'' if self.count == 1 else 's'}" if self.count else ""
        )

    @property
    def marks(self) -> list[list[int]]:
        """The ids that stand for each of them in a prompt without a template."""
        from lolama.vision import picture_ids

        return [picture_ids(self.files)] * self.count

    def count_positions(self, ids: Sequence[int]) -> int:
        """Positions of the prompt, pictures included.

        Raises:
            UsageError: if image tokens and pictures do not go together.
        """
        from lolama.vision import count_positions

        return count_positions(self.files, ids, self.inputs)


def prepare_images(
    files: ModelFiles, names: Sequence[str], mode: str | None
) -> PreparedImages | None:
    """Read and prepare the pictures; None for a text model, which is shown none.

    Raises:
        UsageError: for pictures, or a mode of preparing them, with a text model.
        ModelError: naming the picture that cannot be used.
    """
    from lolama.vision import processor_of

    processor = processor_of(files, mode if names else None)
    if processor is None:
        if names:
            remedy = "use a vision model, such as -m demo-vision"
            raise sees_none(OPTION, len(names), files.name, remedy)
        return None
    return PreparedImages(files, _prepare(processor, names))


def _prepare(processor: ImageProcessor, names: Sequence[str]) -> ImageInputs:
    from lolama.vision import read_picture

    images = []
    for name in names:
        subject = "standard input" if name == "-" else name
        picture = read_picture(_standard_input() if name == "-" else Path(name), subject)
        if picture.notice:
            note(f"note: {picture.notice}")
        images.append(picture.image)
    try:
        return processor.preprocess(images)
    except ModelError as error:
        subjects = ["standard input" if name == "-" else name for name in names]
        raise ModelError(", ".join(subjects), error.reason, error.remedy) from None


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
