"""Reading small files that anyone may have written: configurations, tokenizers, chat templates.

A model directory is data from strangers. Every reader here is bounded in what it will look at, never
waits on a pipe or a device, and answers anything odd with one `ModelError` that names the file.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, shortage
from lolama_core.protocols.types import JSON
from lolama_core.protocols.utf8 import decode_utf8, is_unicode

MAX_TEXT_BYTES = 64 * 2**20
"""The largest published ``tokenizer.json`` is about 35 MB."""

MAX_JSON_BYTES = 16 * 2**20
"""A shard index of 100,000 tensors is about 10 MB."""

MAX_DEPTH = 64
MAX_DIGITS = 300
_TOO_LARGE = 10**MAX_DIGITS

DOWNLOAD_AGAIN = "download it again"

_IMPOSTORS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "is a git-lfs pointer, not the file it points to",
        "run `git lfs pull` in its folder, or download it again",
    ),
    (b"GGUF", "is a GGUF file", "use the safetensors version of the model"),
    (b"\x1f\x8b", "is a gzip archive", "unpack it first"),
    *(
        (
            magic,
            "is a PyTorch pickle, which could run code when opened",
            "use the safetensors version of the model",
        )
        for magic in (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    ),
)


def impostor(head: bytes) -> tuple[str, str] | None:
    """Reason and remedy, if a file that begins with ``head`` is plainly something else."""
    if not head:
        return "is empty", DOWNLOAD_AGAIN
    for magic, reason, remedy in _IMPOSTORS:
        if head.startswith(magic):
            return reason, remedy
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "is a web page (HTML)", "download it again; a login or proxy page may have answered"
    return None


@contextmanager
def open_regular(path: Path) -> Iterator[io.FileIO]:
    """Open a regular file, unbuffered.

    A pipe would wait for a writer for ever and a device may do anything at all, so both are refused:
    once before opening, and once after, in case the name was exchanged in between.

    Raises:
        ModelError: if ``path`` is missing, unreadable, or not a regular file; also for a read that fails
            inside the ``with`` block.
        ResourceError: if no more files may be open, or memory is short.
    """
    try:
        with io.FileIO(_open(path), "rb") as file:
            _check_regular(path, os.fstat(file.fileno()).st_mode)
            yield file
    except FileNotFoundError:
        raise ModelError(str(path), "does not exist", "check the path or download it") from None
    except OSError as error:
        found = shortage(error, str(path))
        if found is not None:
            raise found from error
        reason = f"cannot be read: {error.strerror or error}"
        raise ModelError(str(path), reason, "check the file and its permissions") from error


def _open(path: Path) -> int:
    try:
        _check_regular(path, os.stat(path).st_mode)
    except ValueError:  # a NUL in the name, which can come out of an index file
        raise ModelError(shown(str(path)), "is not a possible file name") from None
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, socket or device"
    raise ModelError(str(path), f"is {kind}, not a regular file", "give the path of a file")


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """An untrusted UTF-8 text file.

    Raises:
        ModelError: if the file is missing, not regular, empty, larger than ``max_bytes``, not UTF-8, or
            plainly something else (a git-lfs pointer, a web page, a pickle).
    """
    with open_regular(path) as file:
        data = bytearray()
        # One byte more than allowed tells "too large" without trusting the size the system reports.
        while len(data) <= max_bytes:
            piece = file.read(min(2**20, max_bytes + 1 - len(data)))
            if not piece:
                break
            data += piece
    return _as_text(data, str(path), max_bytes)


def _as_text(data: bytes | bytearray, subject: str, max_bytes: int) -> str:
    if len(data) > max_bytes:
        reason = f"is larger than {max_bytes / 2**20:g} MiB, the limit for such a file"
        raise ModelError(subject, reason, DOWNLOAD_AGAIN)
    found = impostor(bytes(data[:512]).removeprefix(codecs.BOM_UTF8))
    if found:
        raise ModelError(subject, *found)
    return text_of(data, subject)


def text_of(data: bytes | bytearray, subject: str) -> str:
    """Bytes → text; see `lolama_core.protocols.utf8.decode_utf8`.

    Raises:
        ModelError: for bytes that are not UTF-8, with the place.
    """
    try:
        return decode_utf8(data)
    except ValueError as error:
        raise ModelError(subject, str(error), DOWNLOAD_AGAIN) from None


def read_json(path: Path) -> dict[str, JSON]:
    """A JSON object from an untrusted file of at most 16 MiB; see `parse_json_object`.

    Raises:
        ModelError: as `read_text` and `parse_json_object`.
    """
    return parse_json_object(read_text(path, MAX_JSON_BYTES), str(path))


def parse_json(content: bytes, subject: str) -> dict[str, JSON]:
    """The JSON object that is the content of an untrusted file; see `read_json`.

    Args:
        content: The content of the file.
        subject: What errors name as their place.

    Raises:
        ModelError: as `read_json`.
    """
    return parse_json_object(_as_text(content, subject, MAX_JSON_BYTES), subject)


def parse_json_object(text: str, subject: str) -> dict[str, JSON]:
    """Parse JSON more strictly than `json` does.

    A key that stands twice means different things to different readers; ``NaN``, numbers that overflow,
    endless digits, lone surrogates and deep nesting each break some later step. All are refused here.

    Args:
        text: The JSON.
        subject: What errors name as their place.

    Raises:
        ModelError: for anything but one well-formed object.
    """

    def refuse(reason: str) -> ModelError:
        return ModelError(subject, reason, DOWNLOAD_AGAIN)

    def constant(name: str) -> float:
        # Python writes these, and so do models as they are published: another download is no cure.
        reason = f"holds {name}, which is not JSON"
        raise ModelError(subject, reason, "write a number in its place")

    def unique_keys(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        result = dict(pairs)
        if len(result) != len(pairs):
            [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
            raise refuse(f"holds the key {shown(key)} twice")
        return result

    try:
        value = json.loads(
            text,
            parse_constant=constant,
            object_pairs_hook=unique_keys,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise refuse(f"is not valid JSON ({place}: {error.msg})") from None
    except ValueError:  # Python's own bound on the digits of a whole number
        raise refuse(f"holds a whole number of more than {MAX_DIGITS} digits") from None
    except RecursionError:
        raise refuse(f"is nested more than {MAX_DEPTH} levels deep") from None
    if not isinstance(value, dict):
        raise refuse(f"holds a JSON {_json_type(value)} where an object is expected")
    problem = _problem_inside(value)
    if problem:
        raise refuse(problem)
    return cast(dict[str, JSON], value)


def _problem_inside(root: JSON) -> str:
    """What is wrong with a parsed value, level by level: the interpreter's own limit on depth varies."""
    level: list[JSON] = [root]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[JSON] = []
        for node in level:
            if isinstance(node, dict):
                deeper.extend(node)
                deeper.extend(node.values())
            elif isinstance(node, list):
                deeper.extend(node)
            elif isinstance(node, str):
                if not is_unicode(node):
                    return f"holds text that is not Unicode: {shown(node)}"
            elif isinstance(node, int):
                if abs(node) >= _TOO_LARGE:
                    return f"holds a whole number of more than {MAX_DIGITS} digits"
            elif isinstance(node, float) and math.isinf(node):
                return "holds a number that no floating-point number can hold"
        if not deeper:
            return ""
        level = deeper
    return f"is nested more than {MAX_DEPTH} levels deep"


def _json_type(value: JSON) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "number"
