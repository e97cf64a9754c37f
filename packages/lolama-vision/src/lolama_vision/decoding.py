"""From the bytes of a file to pixels: the side that runs in a process of its own (see `decoder_process`).

A picture may ask for the same work many times over: a JPEG for its last scan, a TIFF for a table, a GIF for
a comment. No list of such tricks is complete, so what counts is the processor time: the kernel ends the
process when its share is used up, wherever in native code it is.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys

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
from lolama_vision import png_file, tiff_file
from lolama_vision.flatten import flatten

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""Formats of Pillow that read pixels and nothing else: no scripts, no other files, no helper programs."""

FORMAT_NAMES = "PNG, JPEG, GIF, WebP, BMP, TIFF, PPM"
MAX_PIXELS = 100_000_000

_SECONDS = 1.0
_SECONDS_PER_BYTE = 1e-8
_SECONDS_PER_PIXEL = 1e-7
"""Several times what pictures take that ask for nothing twice."""


def open_picture(data: bytes) -> Image.Image:
    """A picture whose size and metadata are read, and whose pixels are not.

    Raises:
        ModelError: for what is no picture, is damaged, or has more than 100 million pixels.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # half a picture would be shown as a whole one
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(image)
        _check_whole(image, data)
    except (ModelError, MemoryError):
        raise
    except UnidentifiedImageError:
        reason = "is not a picture, or not of a format that is read here"
        raise ModelError("image", reason, f"give {FORMAT_NAMES}") from None
    except Image.DecompressionBombError:
        raise _too_large("far more") from None
    except Exception as error:  # parsers of damaged files raise nearly anything
        reason = f"is a damaged picture ({type(error).__name__})"
        raise ModelError("image", reason, f"give {FORMAT_NAMES}") from error
    return image


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width:,} × {image.height:,}")


def _check_whole(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse a file that lacks some of its pixels: Pillow, or a library below it, would fill them in."""
    whole = True
    if isinstance(image, PngImagePlugin.PngImageFile):
        whole = png_file.is_whole(data)
    elif isinstance(image, JpegImagePlugin.JpegImageFile):
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # an end after the last scan
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        whole = tiff_file.is_whole(image, data)
    if not whole:
        reason = "is damaged or cut short: pixels are missing, or a checksum is wrong"
        raise ModelError("image", reason, "get the file again")


def _too_large(size: str) -> ModelError:
    reason = f"has {size} pixels, more than {MAX_PIXELS // 1_000_000} million in all"
    return ModelError("image", reason, "make it smaller")


def more_of(image: Image.Image) -> str:
    """What a file holds several of: ``frames``, ``pages``, or "" for one picture."""
    if image.format not in ("GIF", "PNG", "WEBP", "TIFF"):  # MPO: other views of the same
        return ""
    try:
        moving = bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame
        moving = False
    finally:
        image.seek(0)
    if not moving:
        return ""
    return "pages" if image.format == "TIFF" else "frames"


def serve() -> None:
    """Decode what comes on standard input, picture by picture, until it ends.

    A request is the number of its bytes (8, big-endian) and the file. An answer is the same number of a JSON
    object, the object, and the pixels, three bytes each. An object with ``reason`` has no pixels.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.disable()  # so that native libraries alone write to standard error
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while head := source.read(8):
        facts, pixels = _answer(source.read(int.from_bytes(head)))
        header = json.dumps(facts).encode()
        sink.write(len(header).to_bytes(8) + header)
        sink.write(pixels)
        sink.flush()


def _answer(data: bytes) -> tuple[dict[str, object], bytes]:
    try:
        return _decoded(data)
    except ModelError as error:
        return {"reason": error.reason, "remedy": error.remedy}, b""
    except MemoryError:
        return {"reason": "does not fit into memory", "remedy": "make it smaller"}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _decoded(data: bytes) -> tuple[dict[str, object], bytes]:
    seconds = _SECONDS + _SECONDS_PER_BYTE * len(data)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    image = open_picture(data)
    seconds += _SECONDS_PER_PIXEL * image.width * image.height
    signal.setitimer(signal.ITIMER_PROF, seconds)
    more = more_of(image)
    flat = flatten(image)
    return {"width": flat.width, "height": flat.height, "more": more}, flat.tobytes()
