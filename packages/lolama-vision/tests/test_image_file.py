"""Pictures that anyone may have made: rows 68 to 75 of the project's list of faults."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import random_picture, vision_config
from PIL import Image, ImageFile, TiffImagePlugin

from lolama_core.protocols.errors import ModelError
from lolama_core.testing.promises import Promises
from lolama_vision import CLIPImageProcessor, read_picture
from lolama_vision.decoding import open_picture
from lolama_vision.flatten import flatten


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    return random_picture(random.Random(1), width, height, mode)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_of(
    width: int,
    height: int,
    data: bytes = b"",
    *,
    depth: int = 8,
    color: int = 2,
    interlaced: bool = False,
    before: bytes = b"",
) -> bytes:
    """A PNG that claims a width and a height.

    Args:
        width, height: What it says.
        data: Its rows, not compressed yet.
        depth, color: Bits of a sample, and the color type.
        interlaced: Whether the rows are those of Adam7.
        before: Chunks between the header and the rows.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(data or bytes(1000)))
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
def test_row_68_bombs_are_refused_before_they_are_decoded(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ModelError, match="more than 100 million"):
        read_picture(png_of(side, side), "bomb.png")
    with pytest.raises(ModelError, match="more than 100 million"):
        open_picture(png_of(side, side))  # here, where `load` is watched


@pytest.mark.promise
def test_row_68_bombs_are_refused_in_little_time(promises: Promises) -> None:
    read_picture(encoded(photo(), "PNG"))  # the first of all imports Pillow's readers
    for side in (14_000, 30_000, 65_500):
        with promises.within(0.1, "a bomb", side), pytest.raises(ModelError):
            read_picture(png_of(side, side), "bomb.png")


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


# Every number of bits and kind of color that a PNG may have: bits, color type, three samples of a pixel's
# channels each, and what they become without a transparent color. Bits are scaled to 8 (2: times 85,
# 4: times 17); 16 bits of gray are divided by 257, those of colors lose their lower half.
PNG_KINDS: list[tuple[int, int, list[Any], list[Any]]] = [
    (1, 0, [0, 1, 1], [0, 255, 255]),
    (2, 0, [1, 2, 3], [85, 170, 255]),
    (4, 0, [3, 8, 15], [51, 136, 255]),
    (8, 0, [3, 40, 200], [3, 40, 200]),
    (16, 0, [10280, 10281, 65535], [40, 40, 255]),
    (8, 2, [(1, 2, 3), (1, 2, 4), (9, 9, 9)], [(1, 2, 3), (1, 2, 4), (9, 9, 9)]),
    (16, 2, [(256, 512, 768), (511, 0, 0), (0, 0, 0)], [(1, 2, 3), (1, 0, 0), (0, 0, 0)]),
    *((depth, 3, [0, 1, 1], [(10, 20, 30), (40, 50, 60), (40, 50, 60)]) for depth in (1, 2, 4, 8)),
    (8, 4, [(7, 255), (7, 0), (0, 128)], [7, 255, 127]),
    (16, 4, [(1799, 65535), (7, 0), (0, 32896)], [7, 255, 127]),
    (8, 6, [(1, 2, 3, 255), (1, 2, 3, 0), (0, 0, 0, 128)], [(1, 2, 3), 255, 127]),
    (16, 6, [(256, 512, 768, 65535), (1, 2, 3, 0), (0, 0, 0, 32896)], [(1, 2, 3), 255, 127]),
]


@pytest.mark.parametrize("transparent", [None, 0, 1, 2])
@pytest.mark.parametrize("kind", range(len(PNG_KINDS)))
def test_row_126_every_kind_of_png_is_flattened_alike(kind: int, transparent: int | None) -> None:
    depth, color, pixels, shown = PNG_KINDS[kind]
    samples = [pixel if isinstance(pixel, tuple) else (pixel,) for pixel in pixels]
    expected = [gray if isinstance(gray, tuple) else (gray, gray, gray) for gray in shown]
    bits = "".join(f"{sample:0{depth}b}" for pixel in samples for sample in pixel)
    row = b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    before = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60])) if color == 3 else b""
    if transparent is not None and color not in (4, 6):  # those have a channel for it
        if color == 3:
            before += chunk(b"tRNS", bytes([255, 0] if transparent else [0, 255]))
        else:
            before += chunk(b"tRNS", struct.pack(f">{len(samples[0])}H", *samples[transparent]))
        for place, pixel in enumerate(samples):
            if pixel == samples[transparent]:
                expected[place] = (255, 255, 255)
    data = png_of(3, 1, row, depth=depth, color=color, before=before)
    if (depth, color) == (16, 2) and transparent is not None:
        with pytest.raises(ModelError, match="16-bit colors transparent"):
            read_picture(data, "deep.png")
        return
    image = read_picture(data).image
    assert [image.getpixel((x, 0)) for x in range(3)] == expected
    opened = Image.open(io.BytesIO(data))
    assert flatten(opened).tobytes() == flatten(opened).tobytes() == image.tobytes()


def test_row_126_every_mode_of_pillow_is_flattened() -> None:
    """A light color in each that holds colors, and what shows nothing in each that may be transparent."""
    light = Image.new("RGB", (2, 2), (250, 240, 230))
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    for mode in ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
        shown = flatten(light.convert(mode)).getpixel((0, 0))
        assert isinstance(shown, tuple)
        assert max(abs(a - b) for a, b in zip(shown, (250, 240, 230), strict=True)) <= 4, mode
    for mode in ("RGBA", "RGBa", "PA"):
        assert flatten(clear.convert(mode)).getpixel((0, 0)) == (255, 255, 255), mode
    for mode in ("LA", "La"):
        assert flatten(Image.new("LA", (2, 2), (9, 0)).convert(mode)).getpixel((0, 0)) == (255,) * 3


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


@pytest.mark.parametrize(("value", "gray"), [(0, 0), (257 * 100, 100), (65535, 255), (32768, 128)])
def test_row_74_sixteen_bits_are_rescaled(value: int, gray: int) -> None:
    for mode in ("I;16", "I", "I;16B"):
        image = Image.new(mode, (3, 2), value)
        assert flatten(image).getpixel((1, 1)) == (gray, gray, gray), mode
    data = encoded(Image.new("I;16", (3, 2), value), "PNG")
    assert read_picture(data).image.getpixel((2, 0)) == (gray, gray, gray)


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
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "white")]
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


CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))


def is_read(seed: int, processor: CLIPImageProcessor) -> bool:
    """Whether a damaged picture is read and prepared; if not, it was refused."""
    try:
        picture = read_picture(mutated(seed), "mutated")
        pixels = processor.preprocess(picture.image)["pixel_values"]
    except ModelError:
        return False
    assert bool(torch.isfinite(pixels).all()), seed
    return True


def test_mutated_pictures_are_read_or_refused(
    record_property: Callable[[str, object], None],
) -> None:
    """Each gives a picture or one `ModelError`, and never anything else."""
    record_property("damaged pictures", f"{FIRST} to {FIRST + CASES - 1}")
    processor = CLIPImageProcessor(vision_config())
    read = [is_read(seed, processor) for seed in range(FIRST, FIRST + CASES)]
    assert any(read)


@pytest.mark.promise
def test_a_mutated_picture_is_read_or_refused_soon(promises: Promises) -> None:
    processor = CLIPImageProcessor(vision_config())
    for seed in range(FIRST, FIRST + CASES):
        with promises.within(5, "a damaged picture", seed):
            is_read(seed, processor)


def tiff_of(tags: Mapping[int, int | list[int]], data: bytes) -> bytes:
    """A TIFF of one directory, whose data begin at byte 8; all values are 32-bit integers."""
    place = 8 + len(data)
    behind = place + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        raw = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            raw, more = struct.pack("<I", behind + len(more)), more + raw
        entries += struct.pack("<HHI", tag, 4, len(values)) + raw
    table = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", place) + data + table + more


GRAY = {256: 40, 257: 30, 258: 8, 259: 1, 262: 1, 277: 1}
"""Tags of a TIFF of 40 × 30 gray pixels that are not compressed."""

LACKING = {
    "PNG without some rows": png_of(40, 30, bytes(121 * 10)),
    "PNG without some rows, interlaced": png_of(40, 30, bytes(121 * 30), interlaced=True),
    "TIFF without some strips": tiff_of(
        {**GRAY, 278: 5, 273: [8, 8, 8], 279: [200] * 3}, bytes(200)
    ),
    "TIFF without some tiles": tiff_of(
        {**GRAY, 322: 16, 323: 16, 324: [8] * 5, 325: [256] * 5}, bytes(256)
    ),
    "TIFF without a band": tiff_of(
        {**GRAY, 262: 2, 277: 3, 258: [8] * 3, 284: 2, 278: 30, 273: [8, 8], 279: [1200] * 2},
        bytes(1200),
    ),
    "JPEG with zeros at its end": encoded(photo(200, 150), "JPEG")[:3000] + bytes(3000),
}


@pytest.mark.parametrize("name", LACKING)
def test_row_110_pixels_that_are_not_there_are_not_filled_in(name: str) -> None:
    with pytest.raises(ModelError, match=r"^photo: .*(damaged|cut short)"):
        read_picture(LACKING[name], "photo")


@pytest.mark.parametrize("color", [0, 2])
@pytest.mark.parametrize("interlaced", [False, True])
def test_row_110_no_row_is_missed_that_is_there(color: int, interlaced: bool) -> None:
    channels = 3 if color else 1
    for width, height in ((1, 1), (3, 5), (8, 8), (9, 17)):
        passes = (
            *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
            *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
        )
        sizes = [
            (len(range(left, width, across)), len(range(top, height, down)))
            for left, top, across, down in (passes if interlaced else ((0, 0, 1, 1),))
        ]
        rows = b"".join((b"\0" + b"\x32" * (w * channels)) * h for w, h in sizes if w)
        picture = read_picture(png_of(width, height, rows, color=color, interlaced=interlaced))
        assert picture.image.getpixel((width - 1, height - 1)) == (50, 50, 50)
        if len(rows) > 2:
            with pytest.raises(ModelError):
                read_picture(png_of(width, height, rows[:-1], color=color, interlaced=interlaced))


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_row_110_no_changed_bit_of_a_png_goes_unseen(mode: str) -> None:
    whole = encoded(photo(24, 17, mode), "PNG")
    pixels = read_picture(whole).image.tobytes()
    for place in range(len(whole) - 12):  # before the chunk that ends it
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        with contextlib.suppress(ModelError):
            assert read_picture(bytes(damaged)).image.tobytes() == pixels, place


def cut(kind: str) -> bytes:
    """A file in which what holds the pixels ends early."""
    if kind == "fax":  # random bits, which its decoder goes through line by line
        fax = {**GRAY, 256: 9000, 257: 9000, 258: 1, 259: 3, 273: 8, 278: 9000, 279: 3000}
        return tiff_of(fax, random.Random(1).randbytes(3000))
    data = bytearray(encoded(photo(64, 64), "TIFF", compression=kind))
    data[len(data) // 3 : len(data) // 3 + 400] = b"\xff" * 400
    return bytes(data)


@pytest.mark.parametrize("kind", ["fax", "tiff_lzw", "tiff_adobe_deflate", "lzma"])
def test_rows_110_and_111_what_a_native_decoder_says_is_an_error_and_no_line(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="damaged or cut short"):
        read_picture(cut(kind))
    samples = {**GRAY, 277: 65535, 273: 8, 278: 30, 279: 1200}  # which Pillow's logger tells of
    with pytest.raises(ModelError):
        read_picture(tiff_of(samples, bytes(1200)))
    assert capfd.readouterr().err == ""


def test_row_111_pictures_with_odd_metadata_are_accepted_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, kind, value in ((33550, 12, (1.0, 2.0)), (65000, 2, "of a maker"), (65001, 6, -1)):
        tags.tagtype[number] = kind
        tags[number] = value
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        data = encoded(photo(), "TIFF", compression=compression, tiffinfo=tags)
        assert read_picture(data).image.tobytes() == photo().tobytes()
    assert capfd.readouterr().err == ""
