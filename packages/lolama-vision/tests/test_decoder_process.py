"""The process that decodes: it ends what takes too long, survives what crashes, and leaves nothing behind."""

from __future__ import annotations

import errno
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image
from test_image_file import GRAY, chunk, encoded, photo, png_of, tiff_of

from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_vision import decoder_process, read_picture


def scans() -> bytes:
    """A progressive JPEG whose last scan, of nine million pixels, is repeated."""
    data = encoded(Image.new("RGB", (3000, 3000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 3000 + data[-2:]


def segments() -> bytes:
    """A JPEG of a thousand Exif segments, which Pillow joins one by one."""
    data = encoded(photo(8, 8), "JPEG")
    return data[:2] + (b"\xff\xe1\xff\xffExif\0\0" + b"M" * 65527) * 1000 + data[2:]


def profiles() -> bytes:
    """A PNG of thousands of color profiles, each a thousand times smaller than what it holds."""
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20), 9))
    return png_of(40, 30, bytes(121 * 30), before=profile * 20_000)


def chunks() -> bytes:
    """A PNG of five million chunks that hold nothing."""
    return png_of(40, 30, bytes(121 * 30), before=chunk(b"teSt", b"") * 5_000_000)


def comments() -> bytes:
    """A GIF with a comment of thirty million pieces of one byte."""
    data = encoded(photo(8, 8, "P"), "GIF")
    place = data.index(b"\x2c")
    return data[:place] + b"\x21\xfe" + b"\1a" * 30_000_000 + b"\0" + data[place:]


def comment() -> bytes:
    """A PPM with a comment of 50 MB, which Pillow reads byte by byte."""
    return b"P6\n#" + b"a" * 50_000_000 + b"\n1 1\n255\n\0\0\0"


def runs() -> bytes:
    """A BMP of 20 million runs of one pixel, which Pillow decodes in Python."""
    colors = b"".join(bytes([value, value, value, 0]) for value in range(256))
    packed = b"\1\7" * 20_000_000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 4000, 5000, 1, 8, 1, len(packed), 0, 0, 256, 0)
    start = struct.pack("<IHHI", 1078 + len(packed), 0, 0, 1078)
    return b"BM" + start + header + colors + packed


def strips() -> bytes:
    """A TIFF of one column, every pixel a strip of its own that lies where the others do."""
    rows = 5_000_000
    tags: dict[int, int | list[int]] = {
        **GRAY,
        256: 1,
        257: rows,
        278: 1,
        273: [8] * rows,
        279: [1] * rows,
    }
    return tiff_of(tags, b"\7" * 8)


@pytest.mark.parametrize(
    "bomb", [scans, segments, profiles, chunks, comments, comment, runs, strips]
)
def test_row_109_work_that_a_file_asks_for_again_and_again_is_ended(bomb: object) -> None:
    assert callable(bomb)
    data = bomb()
    # The kernel ends it after a second of processor time, and what size and pixels add to that.
    with pytest.raises(ModelError, match=r"^bomb: .*far more processor time"):
        read_picture(data, "bomb")
    assert read_picture(encoded(photo(), "PNG")).image.size == (40, 30)


def test_row_160_a_decoder_that_crashes_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(photo(), "PNG")
    read_picture(picture)
    process = decoder_process._decoder._process
    assert process is not None
    process.send_signal(signal.SIGSEGV)
    process.wait()
    with pytest.raises(ModelError, match=r"^photo: .*ended with status -11"):
        read_picture(picture, "photo")
    assert read_picture(picture).image.size == (40, 30)


def test_row_160_threads_take_turns_and_a_fork_has_a_process_of_its_own() -> None:
    pictures = {side: encoded(photo(side, side), "PNG") for side in range(8, 24)}
    found: dict[int, Image.Image] = {}

    def read(side: int) -> None:
        found[side] = read_picture(pictures[side]).image

    threads = [threading.Thread(target=read, args=(side,)) for side in pictures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {side: image.width for side, image in found.items()} == {side: side for side in pictures}
    assert all(found[side].tobytes() == photo(side, side).tobytes() for side in pictures)
    ours = decoder_process._decoder._process
    child = os.fork()
    if child == 0:
        same = read_picture(pictures[9]).image.tobytes() == found[9].tobytes()
        other = decoder_process._decoder._process is not ours
        decoder_process._decoder.end()
        os._exit(0 if same and other else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_picture(pictures[9]).image.tobytes() == found[9].tobytes()
    assert decoder_process._decoder._process is ours


def test_row_160_nothing_is_imported_from_the_folder_nor_left_when_it_ends(
    tmp_path: os.PathLike[str],
) -> None:
    for name in ("json.py", "PIL.py", "logging.py", "lolama_vision.py"):
        with open(os.path.join(tmp_path, name), "w", encoding="ascii") as file:
            file.write("import os; os.abort()\n")
    script = (
        "import sys; from lolama_vision import decoder_process, read_picture\n"
        "print(read_picture(sys.stdin.buffer.read()).image.size, decoder_process._decoder._process.pid)"
    )
    buffer = io.BytesIO()
    photo().save(buffer, "PNG")
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", script],
        input=buffer.getvalue(),
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stderr == b""
    size, _, pid = done.stdout.decode().rpartition(" ")
    assert size == "(40, 30)"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_row_93_the_process_runs_no_code_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*sys.stdlib_module_names, "PIL", "lolama_core"):
        (tmp_path / f"{name}.py").write_text(f"open('RAN', 'a').write('{name} ')")
    monkeypatch.chdir(tmp_path)
    # As in an interactive session, in one that was begun with `python -m`, and with a careless PYTHONPATH.
    for entry in ("", str(tmp_path)):
        monkeypatch.syspath_prepend(entry)
    monkeypatch.setenv("PYTHONPATH", ":.")
    decoder_process._decoder.end()
    assert read_picture(encoded(photo(8, 8), "PNG")).image.size == (8, 8)
    assert not (tmp_path / "RAN").exists(), (tmp_path / "RAN").read_text()


@pytest.mark.parametrize("name", ["os.pipe", "subprocess.Popen"])
def test_row_121_no_files_left_for_the_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    decoder_process._decoder.end()
    open_before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(name, refuse)
        with pytest.raises(ResourceError, match="as many files open as it may"):
            read_picture(encoded(photo(8, 8), "PNG"))
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert read_picture(encoded(photo(8, 8), "PNG")).image.size == (8, 8)
