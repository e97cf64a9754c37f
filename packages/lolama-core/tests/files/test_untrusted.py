from __future__ import annotations

import codecs
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lolama_core import load, open_checkpoint, write_checkpoint
from lolama_core.files.untrusted import read_json, read_text
from lolama_core.protocols.errors import (
    LolamaError,
    ModelError,
    ResourceError,
    UsageError,
    shortage,
)
from lolama_core.testing.checkpoint import tiny_config

READERS: list[Callable[[Path], object]] = [read_text, read_json]


def refused(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_reads_text_and_objects(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    value = {"a": [1, -2.5, True, None, "ä \u2028 😀"], "b": {"c": {}}, "big": 10**299}
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert read_json(path) == value
    assert json.loads(read_text(path)) == value


def test_follows_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    assert read_json(tmp_path / "config.json") == {}


@pytest.mark.parametrize("read", READERS)
def test_row38_pipe_directory_device_do_not_hang(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe, socket or device" in refused(read, tmp_path / "pipe")
    assert "directory" in refused(read, tmp_path)
    assert "device" in refused(read, Path("/dev/zero"))
    assert "device" in refused(read, Path("/dev/null"))
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "device" in refused(read, tmp_path / "link")


@pytest.mark.parametrize("read", READERS)
def test_names_that_lead_nowhere(read: Callable[[Path], object], tmp_path: Path) -> None:
    assert "does not exist" in refused(read, tmp_path / "absent.json")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in refused(read, tmp_path / "loop")
    assert "cannot be read" in refused(read, tmp_path / ("x" * 300))
    assert "not a possible file name" in refused(read, Path("a\0b"))


def test_row_106_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": "b"}')
    assert read_json(path) == {"a": "b"}
    path.write_bytes(codecs.BOM_UTF8 + b"{{ messages }}")
    assert read_text(path) == "{{ messages }}"
    path.write_bytes(codecs.BOM_UTF8)
    assert "is empty" in refused(read_text, path)
    path.write_bytes(codecs.BOM_UTF8 + b"<html>")
    assert "web page" in refused(read_text, path)
    path.write_bytes(codecs.BOM_UTF16_LE + '{"a": 1}'.encode("utf-16-le"))
    assert "UTF-16" in refused(read_json, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0)
    assert "Permission denied" in refused(read_json, path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="row53-empty"),
        pytest.param(b"{", "not valid JSON (line 1, column 2", id="row53-truncated"),
        pytest.param(b"\n <!DOCTYPE html><p>", "web page", id="row53-html"),
        pytest.param(b"<HTML>", "web page", id="row53-HTML"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "git-lfs", id="lfs"),
        pytest.param(b"\x1f\x8b\x08", "gzip", id="gzip"),
        pytest.param(b"PK\x03\x04", "pickle", id="zip"),
        pytest.param(b"\x80\x04\x95", "pickle", id="pickle"),
        pytest.param(b"GGUF\x03", "GGUF", id="gguf"),
        pytest.param(b'{"a": "\xff"}', "not UTF-8: byte 0xff at offset 7", id="not-utf-8"),
        pytest.param(b"[]", "a JSON array where an object is expected", id="array"),
        pytest.param(b"null", "a JSON null", id="null"),
        pytest.param(b"true", "a JSON boolean", id="boolean"),
        pytest.param(b'"a"', "a JSON string", id="string"),
        pytest.param(b"1", "a JSON number", id="number"),
        pytest.param(b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice", id="twice"),
        pytest.param(b'{"a": NaN}', "holds NaN", id="row48-nan"),
        pytest.param(b'{"a": -Infinity}', "holds -Infinity", id="row48-infinity"),
        pytest.param(b'{"a": 1e400}', "floating-point", id="row48-overflow"),
        pytest.param(b'{"a": ' + b"9" * 301 + b"}", "300 digits", id="row48-301-digits"),
        pytest.param(b'{"a": -' + b"9" * 5000 + b"}", "300 digits", id="row48-5000-digits"),
        pytest.param(b'{"a": ' + b"9" * 10**6 + b"}", "300 digits", id="row48-10^6-digits"),
        pytest.param(b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "64 levels", id="row48-nested-66"),
        pytest.param(b'{"a":' * 10**6, "64 levels", id="row48-nested-10^6"),
        pytest.param(rb'{"a": "\ud800"}', "not Unicode", id="half-a-surrogate-pair"),
        pytest.param(rb'{"\udc00 \u00e4": 1}', "not Unicode", id="half-a-pair-in-a-key"),
        pytest.param(b'{"\x1b]0;x": 1, "\x1b]0;x": 2}', "not valid", id="escape"),
        pytest.param(rb'{"\u001b[2J": 1, "\u001b[2J": 2}', r"\x1b", id="escape-in-a-key"),
    ],
)
def test_json_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    message = refused(read_json, path)
    assert message.startswith(f"{path}: ")
    assert reason in message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_row_418_what_python_writes_in_place_of_a_number(tmp_path: Path, word: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"time_step_limit": [0.0, {word}]}}')
    reason = f"holds {word}, which is not JSON; write a number in its place"
    assert refused(read_json, path) == f"{path}: {reason}"


def test_nesting_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": ' + "[" * 63 + "1" + "]" * 63 + "}")
    assert "a" in read_json(path)


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"{}" + b" " * (16 * 2**20 - 2))
    assert read_json(path) == {}
    path.write_bytes(b"{}" + b" " * (16 * 2**20 - 1))
    assert "larger than 16 MiB" in refused(read_json, path)
    assert len(read_text(path)) == 16 * 2**20 + 1
    os.truncate(path, 10**12)  # sparse: refused without reading it all
    assert "larger than 64 MiB" in refused(read_text, path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_row_121_what_the_system_has_run_out_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "config.json").write_text("{}")

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number), "config.json")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(ResourceError, match=r"config\.json: .*(open as it may|enough memory)"):
            read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "process has as many files open"),
        (OSError(errno.ENFILE, "Too many open files in system"), "system has as many files open"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (ImportError("libc10.so: failed to map segment from shared object"), "not enough memory"),
        (
            ImportError("libc10.so: cannot open shared object file: Too many open files"),
            "process has",
        ),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (MemoryError(), "not enough memory"),
        (OSError(errno.EACCES, "Permission denied"), ""),
        (ValueError("can't allocate memory"), ""),
    ],
)
def test_row_121_shortages_are_told_by_number_or_words(error: Exception, found: str) -> None:
    told = shortage(error, "x")
    assert (str(told) if told else "").startswith("x: " if found else "")
    assert found in str(told) if found else told is None


@pytest.mark.parametrize("name", ["a" * 5000, "b" * 300 + "/x", "a\0b", "/etc/passwd/x"])
def test_row_120_paths_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="is neither a directory nor the built-in model"):
        load(name)
    with pytest.raises(ModelError, match="is not a directory"):
        open_checkpoint(Path(name))
    with pytest.raises(LolamaError):
        write_checkpoint(Path(name), tiny_config(), [], tokenizer_json="{}")
