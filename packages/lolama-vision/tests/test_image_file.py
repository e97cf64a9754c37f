"""Pictures that anyone may have made: rows 68 to 75 of the project's list of faults."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle import random_picture, vision_config
from PIL import Image

from lolama_core.protocols.errors import ModelError
from lolama_vision import CLIPImageProcessor, read_picture
from lolama_vision.flatten import flatten


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    return random_picture(random.Random(1), width, height, mode)


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it has so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data or zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_format_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(photo(), kind))
    picture = read_picture(path)
    assert (picture.image.size, picture.image.mode, picture.notice) == ((40, 30), "RGB", "")
    assert picture.image.tobytes() == read_picture(path.read_bytes()).image.tobytes()
    assert picture.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("side", [14_000, 30_000, 65_500])
def test_row_68_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError, match="more than 100 million"):
        read_picture(png_of(side, side), "bomb.png")
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_row_69_a_picture_that_is_cut_short(kind: str) -> None:
    whole = encoded(photo(200, 150), kind)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ModelError, match=r"^photo: .*(damaged|not a picture)"):
            read_picture(whole[: int(len(whole) * share)], "photo")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
FITS = b"".join(
    line.ljust(80)
    for line in (
        *(b"SIMPLE  =                    T", b"BITPIX  =                    8"),
        *(b"NAXIS   =                    2", b"NAXIS1  =                    9"),
        *(b"NAXIS2  =                    9", b"END"),
    )
).ljust(2880) + bytes(2880)


@pytest.mark.parametrize("data", [b"", b"a text\n", SVG, EPS, FITS, b"\0" * 5000, b"%PDF-1.7"])
def test_row_70_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        read_picture(data, "thing")
    assert "PNG, JPEG, GIF, WebP, BMP, TIFF, PPM" in str(caught.value)


def test_row_70_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "absent", "does not exist"),
        (Path("/dev/zero"), "not a regular file"),
        (Path("a\0b"), "no possible file name"),
    ):
        with pytest.raises(ModelError, match=words):
            read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_row_72_orientation(orientation: int, kind: str) -> None:
    """Each of the eight ways a camera may be held shows the same pixels."""
    # What the sensor saw, so that turning it by the orientation gives the upright picture.
    turned_by = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = photo(32, 16)
    stored = upright.transpose(turned_by) if turned_by is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    image = read_picture(data).image
    # The image processor, which takes pictures of any origin, does not turn it a second time.
    assert flatten(image).tobytes() == image.tobytes()
    if kind == "JPEG":
        plain = encoded(stored, kind)
        expected: Image.Image = Image.open(io.BytesIO(plain))
        undo = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
        turn = undo.get(orientation, turned_by)
        expected = expected.transpose(turn) if turn is not None else expected
        assert image.tobytes() == expected.tobytes()
    else:
        assert image.tobytes() == upright.tobytes()
    # In Python the same holds for a picture that the caller has opened.
    assert flatten(Image.open(io.BytesIO(data))).tobytes() == image.tobytes()


def test_row_73_flattening() -> None:
    opaque = (200, 30, 60)
    cases = {
        "RGBA": (Image.new("RGBA", (2, 2), (*opaque, 0)), (255, 255, 255)),
        "RGBA opaque": (Image.new("RGBA", (2, 2), (*opaque, 255)), opaque),
        "RGBA half": (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
        "LA": (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        "PA": (Image.new("RGBA", (2, 2), (0, 0, 0, 0)).convert("PA"), (255, 255, 255)),
        "1": (Image.new("1", (2, 2), 1), (255, 255, 255)),
        "L": (Image.new("L", (2, 2), 77), (77, 77, 77)),
        "P": (
            Image.new("RGB", (2, 2), opaque).convert("P", palette=Image.Palette.ADAPTIVE),
            opaque,
        ),
        "CMYK": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    }
    for name, (image, expected) in cases.items():
        assert flatten(image).getpixel((0, 0)) == expected, name
    transparent = Image.new("P", (2, 2), 3)
    transparent.putpalette([0] * 768)
    data = encoded(transparent, "PNG", transparency=3)
    assert read_picture(data).image.getpixel((0, 0)) == (255, 255, 255)
    data = encoded(Image.new("RGB", (2, 2), opaque), "PNG", transparency=opaque)
    assert read_picture(data).image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (257 * 100, 100), (65535, 255), (32768, 128)])
def test_row_74_sixteen_bits_are_rescaled(value: int, grey: int) -> None:
    for mode in ("I;16", "I", "I;16B"):
        image = Image.new(mode, (3, 2), value)
        assert flatten(image).getpixel((1, 1)) == (grey, grey, grey), mode
    data = encoded(Image.new("I;16", (3, 2), value), "PNG")
    assert read_picture(data).image.getpixel((2, 0)) == (grey, grey, grey)


def test_row_74_what_has_no_white_is_refused() -> None:
    for image in (
        Image.new("I", (2, 2), 70_000),
        Image.new("I", (2, 2), -1),
        Image.new("F", (2, 2), 0.5),
    ):
        with pytest.raises(ModelError, match="nothing says which of them is white"):
            read_picture(encoded(image, "TIFF"), "scan.tif")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_row_75_animations(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "white")]
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    picture = read_picture(data, "moving")
    assert picture.image.getpixel((4, 4)) == (255, 0, 0)
    assert picture.notice.startswith("moving has several ")
    assert "only the first" in picture.notice


def test_row_75_damaged_metadata_is_ignored() -> None:
    image = photo()
    for options in (
        {"exif": b"Exif\0\0" + b"\xff" * 50},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"},
        {"icc_profile": b"\x13" * 400},
    ):
        for kind in ("JPEG", "PNG", "WEBP"):
            if kind != "WEBP" or "icc_profile" in options:
                damaged = read_picture(encoded(image, kind, quality=95, **options))
                plain = read_picture(encoded(image, kind, quality=95))
                assert damaged.image.tobytes() == plain.image.tobytes(), (kind, options)


def test_a_file_with_too_many_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(ModelError, match="more than 256 MiB"):
        read_picture(path)


SEEDS = {
    kind: encoded(photo(24, 17, mode), kind, **options)
    for kind, mode, options in (
        ("PNG", "RGBA", {}),
        (
            "JPEG",
            "RGB",
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"},
        ),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("PPM", "RGB", {}),
    )
}


def mutated(seed: int) -> bytes:
    """A small picture with bytes changed, cut out, doubled, or put together from two formats."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(list(SEEDS.values())))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del data[place : place + rng.randint(1, 40)]
        elif kind == 3:
            data[place:place] = data[place : place + rng.randint(1, 40)]
        elif kind == 4:
            data[place : place + 2] = struct.pack(rng.choice("<>") + "H", rng.randrange(65536))
        else:
            other = rng.choice(list(SEEDS.values()))
            data[place:] = other[rng.randrange(len(other)) :]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def test_mutated_pictures_are_read_or_refused(
    record_property: Callable[[str, object], None],
) -> None:
    """Each gives a picture or one `ModelError`, soon, and never anything else."""
    first = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))
    cases = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))
    record_property("damaged pictures", f"{first} to {first + cases - 1}")
    processor = CLIPImageProcessor(vision_config())
    read = 0
    for seed in range(first, first + cases):
        started = time.perf_counter()
        try:
            picture = read_picture(mutated(seed), "mutated")
            pixels = processor.preprocess(picture.image)["pixel_values"]
            assert bool(torch.isfinite(pixels).all())
            read += 1
        except ModelError:
            pass
        assert time.perf_counter() - started < 5, seed
    assert read > 0
