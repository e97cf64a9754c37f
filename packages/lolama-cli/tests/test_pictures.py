"""``lolama generate --image``: what it sees, and every way in which a picture can be refused."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest
from drawings import circle, encoded
from program import Outcome
from warm_program import on_terminal, run

RED = b"A large red circle in the centre."
BLUE = b"A large blue circle in the centre."
ASKED = "What is in the picture?"


def ask(*options: str | Path, question: str = ASKED, stdin: bytes = b"") -> Outcome:
    arguments = ("generate", "-m", "demo-vision", "--temperature", "0", *options, question)
    return run(*arguments, stdin=stdin)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(encoded(circle()))
    return path


def test_a_picture_is_described_and_nothing_else_is_written(red: Path) -> None:
    outcome = ask("--image", red)
    assert (outcome.code, outcome.out, outcome.err) == (0, RED, "")
    assert ask("-i", red, question="Is there a blue circle?").out == b"No, there is no blue circle."


def test_in_int8(red: Path, tmp_path: Path) -> None:
    arguments = (
        "generate",
        "-m",
        "demo-vision",
        "--quantize",
        "--temperature",
        "0",
        "-i",
        red,
        ASKED,
    )
    home = {"LOLAMA_HOME": str(tmp_path / "home")}
    assert run(*arguments, env=home).out == RED
    told = run("-v", *arguments, env=home)
    assert told.out == RED
    assert "int8" in told.err


def test_from_standard_input(red: Path) -> None:
    outcome = ask("--image", "-", stdin=red.read_bytes())
    assert (outcome.code, outcome.out, outcome.err) == (0, RED, "")
    prompt = ("generate", "-m", "demo-vision", "--temperature", "0", "--image", red)
    assert run(*prompt, stdin=ASKED.encode()).out == RED
    ask("--image", "-", "--image", "-", stdin=b"x").refused(2, "--image", "once")
    run("generate", "-m", "demo-vision", "--image", "-", stdin=b"x").refused(2, "cannot both")
    ask("--image", "-", stdin=b"").refused(3, "standard input", "empty")


def test_without_a_template_and_as_python_does(red: Path) -> None:
    assert ask("--image", red, "--raw").out == RED


def test_a_url_is_never_opened() -> None:
    for url in (
        "http://127.0.0.1:1/a.png",
        "HTTPS://example.org/a.png",
        "file:///etc/passwd",
        "data:,",
    ):
        ask("--image", url).refused(2, "--image", "URL", "download the picture")


@pytest.mark.parametrize("mode", ["auto", "crop", "pad"])
def test_modes(mode: str, red: Path) -> None:
    assert ask("--image", red, "--image-mode", mode).out == RED


def test_modes_that_cannot_be_honored() -> None:
    run("generate", "--image-mode", "stretch", "z").refused(2, "--image-mode")
    run("generate", "--image-mode", "pad", "z").refused(2, "--image-mode", "no picture")


def test_several_pictures_take_their_positions(red: Path) -> None:
    outcome = run("-v", *_arguments(red, red))
    one = run("-v", *_arguments(red))
    assert outcome.code == one.code == 0
    positions = [int(run_.err.split(" prompt tokens")[0].split()[-1]) for run_ in (outcome, one)]
    assert positions[0] - positions[1] == 36 + 1  # features, and a new line
    many = ask(*[part for _ in range(40) for part in ("--image", red)])
    many.refused(2, "prompt", "more than the 1,024")


def _arguments(*pictures: Path) -> list[str]:
    options = [part for picture in pictures for part in ("--image", str(picture))]
    return ["generate", "-m", "demo-vision", "--max-tokens", "1", *options, ASKED]


def test_progress_on_a_terminal_alone(red: Path) -> None:
    outcome = on_terminal(*_arguments(red))  # standard error is a pipe
    assert (outcome.code, outcome.err) == (0, "")


def test_row_68_bombs() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (14_000, 30_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b"")
        )
        ask("--image", "-", stdin=bomb).refused(3, "standard input", "100 million")


def test_row_69_truncated(red: Path, tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        path = tmp_path / "short"
        data = encoded(circle(), kind)
        path.write_bytes(data[: len(data) * 2 // 3])
        ask("--image", path).refused(3, str(path), "damaged or cut short")


@pytest.mark.parametrize(
    "data", [b"", b"text\n", b"<svg xmlns='x'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_row_70_no_pictures(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(data)
    ask("--image", path).refused(3, str(path), "PNG, JPEG, GIF, WebP, BMP, TIFF, PPM")


def test_row_70_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ask("--image", tmp_path / "pipe").refused(3, "not a regular file")
    ask("--image", tmp_path / "absent").refused(3, "does not exist")
    ask("--image", "").refused(2, "--image", "empty")


def test_row_71_one_pixel_and_a_thread(tmp_path: Path) -> None:
    from PIL import Image

    assert ask("--image", "-", stdin=encoded(Image.new("RGB", (1, 1)))).code == 0
    thread = encoded(Image.new("RGB", (1, 60_000)))
    ask("--image", "-", stdin=thread).refused(3, "standard input", "too long and thin")


def test_row_72_held_sideways(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (150, 150), "white")
    picture.paste(circle("blue", 50).resize((50, 50)), (0, 0))  # at the top left
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(picture, "JPEG", quality=95, exif=exif)
    outcome = ask("--image", "-", question="Where is the blue circle?", stdin=turned)
    assert outcome.out == b"The blue circle is at the bottom right."


def test_rows_73_and_74_flattening(tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    see_through = circle().convert("RGBA")
    white = Image.new("RGB", see_through.size, "white")
    difference = ImageChops.difference(circle(), white).convert("L")
    see_through.putalpha(difference.point(lambda value: 255 if value else 0))
    assert ask("--image", "-", stdin=encoded(see_through)).out == RED
    floating = encoded(Image.new("F", (9, 9), 0.5), "TIFF")
    ask("--image", "-", stdin=floating).refused(3, "standard input", "floating-point")


def test_row_75_an_animation(tmp_path: Path) -> None:
    data = encoded(circle(), "PNG", save_all=True, append_images=[circle("blue")])
    outcome = ask("--image", "-", stdin=data)
    assert (outcome.code, outcome.out) == (0, RED)
    assert outcome.err == "note: standard input has several frames; only the first is looked at\n"


def test_row_76_pictures_and_models(red: Path, base: Path, chatty: Path) -> None:
    for model in (base, chatty, "demo"):
        outcome = run("generate", "-m", model, "--image", red, "--image", red, "z")
        outcome.refused(2, "--image", "2 pictures", "takes none", "demo-vision")
    # Before any weight is read, or any picture.
    run("generate", "-m", base, "--image", "absent.png", "z").refused(2, "--image", "1 picture")


def test_row_76_what_a_user_types_is_no_picture(red: Path) -> None:
    """``<image>`` in a text is seven characters, with and without a picture beside it."""
    assert ask(question="<image> How many circles are there?").code == 0
    typed = run("-v", *_arguments(red)[:-1], f"<image>{ASKED}")
    plain = run("-v", *_arguments(red))
    counts = [int(run_.err.split(" prompt tokens")[0].split()[-1]) for run_ in (typed, plain)]
    assert typed.code == 0
    assert 0 < counts[0] - counts[1] < 36


def test_a_question_without_a_picture_is_answered_too() -> None:
    outcome = ask(question="How many shapes are there?")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out


def test_rows_110_and_111_a_damaged_picture_is_one_line(tmp_path: Path) -> None:
    # A fax of random bits: its decoder has something to say about every line.
    tags = {256: 900, 257: 900, 258: 1, 259: 3, 262: 1, 273: 8, 277: 1, 278: 900, 279: 3000}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    noise = random.Random(1).randbytes(3000)
    path = tmp_path / "fax.tif"
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 3008) + noise + struct.pack("<H", 9) + entries + bytes(4)
    )
    ask("--image", path).refused(3, str(path), "damaged or cut short", "Fax3Decode1D")


def test_row_109_a_picture_that_would_take_minutes() -> None:
    bomb = b"P6\n#" + b"a" * 50_000_000 + b"\n1 1\n255\n\0\0\0"
    ask("--image", "-", stdin=bomb).refused(3, "standard input", "processor time")
