"""Reading a picture that anyone may have made: bounded, never waiting, and one error for all that is odd."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lolama_core.protocols.errors import LolamaError, ModelError, shortage
from lolama_vision.decoder_process import decode
from lolama_vision.decoding import FORMAT_NAMES

MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Picture:
    """A picture read from a file, ready for an image processor.

    Attributes:
        image: Upright, in mode RGB.
        notice: What its reader should be told; empty if nothing.
        digest: SHA-256 of the file, in hexadecimal.
    """

    image: Image.Image
    notice: str = ""
    digest: str = ""


def read_picture(source: Path | bytes, name: str = "") -> Picture:
    """Read a file, or the bytes of one.

    Args:
        source: A path, or the content of a file.
        name: What errors call it; by default its path.

    Raises:
        ModelError: if it is no picture of a known format, damaged, larger than 100 million pixels (which is
            looked at before anything is decoded), or made to take far longer than a picture of its size.
        ResourceError: if no process can be started to decode it in.
    """
    subject = name or (str(source) if isinstance(source, Path) else "image")
    data = source if isinstance(source, bytes) else _read(source, subject)
    if not data:
        raise ModelError(subject, "is empty", f"give a picture: {FORMAT_NAMES}")
    if len(data) > MAX_BYTES:
        reason = f"has more than {MAX_BYTES >> 20} MiB"
        raise ModelError(subject, reason, "make it smaller")
    try:
        image, more = decode(data)
    except LolamaError as error:
        raise type(error)(subject, error.reason, error.remedy) from error
    notice = f"{subject} has several {more}; only the first is looked at" if more else ""
    return Picture(image, notice, hashlib.sha256(data).hexdigest())


def _read(path: Path, subject: str) -> bytes:
    remedy = "check the path"
    try:
        # A pipe would wait for a writer for ever, and a device may do anything at all.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelError(subject, "is not a regular file", "give the path of a picture")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelError(subject, "does not exist", remedy) from None
    except (OSError, ValueError) as error:
        found = shortage(error, subject)
        if found is not None:
            raise found from None
        reason = getattr(error, "strerror", None) or "is no possible file name"
        raise ModelError(subject, f"cannot be read: {reason}", remedy) from None
