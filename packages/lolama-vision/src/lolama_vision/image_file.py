"""Reading a picture that anyone may have made: bounded, never waiting, and one error for all that is odd."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

# Importing a format's module is what makes Pillow know it.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from lolama_core.protocols.errors import ModelError
from lolama_vision.flatten import flatten

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""Formats of Pillow that read pixels and nothing else: no scripts, no other files, no helper programs."""

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000
_NAMES = "PNG, JPEG, GIF, WebP, BMP, TIFF, PPM"


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
        ModelError: if it is no picture of a known format, damaged, or larger than 100 million pixels. The
            size is looked at before anything is decoded.
    """
    subject = name or (str(source) if isinstance(source, Path) else "image")
    data = source if isinstance(source, bytes) else _read(source, subject)
    if not data:
        raise ModelError(subject, "is empty", f"give a picture: {_NAMES}")
    if len(data) > MAX_BYTES:
        reason = f"has more than {MAX_BYTES >> 20} MiB"
        raise ModelError(subject, reason, "make it smaller")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on sizes and metadata that are judged here
        image = _open(data, subject)
        notice = _notice(image, subject)
        try:
            return Picture(flatten(image), notice, hashlib.sha256(data).hexdigest())
        except ModelError as error:
            raise ModelError(subject, error.reason, error.remedy) from error
        except MemoryError:
            raise ModelError(subject, "does not fit into memory", "make it smaller") from None


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
        reason = getattr(error, "strerror", None) or "is no possible file name"
        raise ModelError(subject, f"cannot be read: {reason}", remedy) from None


def _open(data: bytes, subject: str) -> Image.Image:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # half a picture would be shown as a whole one
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(subject, "far more") from None
    except Exception as error:  # parsers of damaged files raise nearly anything
        reason = "is not a picture, or not of a format that is read here"
        if isinstance(error, UnidentifiedImageError):
            raise ModelError(subject, reason, f"give {_NAMES}") from None
        raise ModelError(
            subject, f"is a damaged picture ({type(error).__name__})", f"give {_NAMES}"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(subject, f"{image.width:,} × {image.height:,}")
    return image


def _too_large(subject: str, size: str) -> ModelError:
    reason = f"has {size} pixels, more than {MAX_PIXELS // 1_000_000} million in all"
    return ModelError(subject, reason, "make it smaller")


def _notice(image: Image.Image, subject: str) -> str:
    if image.format not in ("GIF", "PNG", "WEBP", "TIFF"):  # MPO: other views of the same
        return ""
    try:
        moving = bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame
        moving = False
    finally:
        image.seek(0)
    kind = "pages" if image.format == "TIFF" else "frames"
    return f"{subject} has several {kind}; only the first is looked at" if moving else ""
