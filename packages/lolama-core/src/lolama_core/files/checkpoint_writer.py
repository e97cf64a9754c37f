"""Writing a lolama checkpoint: all of it or nothing, whatever interrupts.

Everything goes into a hidden directory beside the target, is forced to the disk, and becomes visible by
one rename. A writer that is killed leaves its hidden directory behind; the next writer of the same target
removes it. It knows that nobody is at work there by the lock that every writer holds on its own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from torch import Tensor

from lolama_core.files.checkpoint_config import check_config, declared_dtypes
from lolama_core.files.checkpoint_reader import (
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_dtype,
    check_finite,
    dtype_name,
)
from lolama_core.files.safetensors_writer import SafetensorsWriter
from lolama_core.files.untrusted import read_json
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import (
    FULL_DISK,
    ModelError,
    ResourceError,
    UsageError,
    exists_already,
)
from lolama_core.protocols.file_lock import lock_open_file
from lolama_core.protocols.types import FORMAT_NAME, JSON, CanonicalConfig

_OWN_FILES = {CHAT_TEMPLATE_FILE, CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE}

# These are from the system's headers: renameat2(2) and rename(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_RENAME_SWAP = 2


def write_checkpoint(
    directory: Path,
    config: CanonicalConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    tokenizer_json: str | None,
    chat_template: str | None = None,
    replace: bool = False,
) -> None:
    """Write a lolama checkpoint directory.

    Args:
        directory: Where; must not exist unless ``replace``, but its parent must.
        config: The canonical configuration.
        tensors: Canonical name and tensor, taken one at a time: the whole model need never be in memory.
            A tensor that has two names is to be given once.
        tokenizer_json: The content of ``tokenizer.json``; None for a model that is given ids.
        chat_template: Jinja source, if the model has a template.
        replace: Put it in the place of the lolama checkpoint that ``directory`` is, in one step. What is no
            lolama checkpoint, or holds files of somebody else, is never replaced.

    Raises:
        UsageError: if ``directory`` exists or cannot be made, or a name is given twice.
        ModelError: for a configuration or tensor that could not be read back.
        ResourceError: if the disk is full, or read-only.

    Example:
        >>> write_checkpoint(path, config, model.state_dict().items(), tokenizer_json=text)
    """
    if not os.fspath(directory):  # which would be the current folder
        raise UsageError("directory", "the folder's name is empty", "give one")
    directory = Path(os.path.abspath(directory))
    subject = str(directory)
    check_config(cast(Mapping[str, JSON], config), subject)
    if "\0" in subject:
        raise UsageError(repr(subject), "is no possible name of a folder", "choose another name")
    exists = os.path.lexists(directory)
    if exists and not replace:
        raise exists_already(directory)
    if exists:
        _check_is_ours(directory)
    if not os.path.isdir(directory.parent):
        raise UsageError(subject, "the folder to write it in does not exist", "create it first")
    try:
        with _staging(directory) as staging:
            _write_weights(staging / WEIGHTS_FILE, config, tensors, subject)
            if tokenizer_json is not None:
                _write_text(staging / TOKENIZER_FILE, tokenizer_json)
            if chat_template is not None:
                _write_text(staging / CHAT_TEMPLATE_FILE, chat_template)
            text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
            _write_text(staging / CONFIG_FILE, text + "\n")
            _sync_directory(staging)
            if exists:
                _exchange(staging, directory)  # the old one goes with the staging directory
            else:
                os.rename(staging, directory)
            _sync_directory(directory.parent)
    except OSError as error:
        raise disk_error(error, directory) from error


def _write_weights(
    path: Path, config: CanonicalConfig, tensors: Iterable[tuple[str, Tensor]], subject: str
) -> None:
    declared = declared_dtypes(config)
    with open(path, "x+b", buffering=0) as file:
        writer = SafetensorsWriter(file)
        for name, tensor in tensors:
            # What the reader refuses must not be written: the damage would show only at the next load.
            check_dtype(name, dtype_name(tensor.dtype), declared, subject)
            check_finite(name, tensor, subject, "write it with weights that are finite")
            writer.add(name, tensor)
        writer.finish()
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    with open(path, "xb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _check_is_ours(directory: Path) -> None:
    """Refuse to replace what is no lolama checkpoint, or what holds files of somebody else beside one.

    Raises:
        UsageError: naming what is there.
    """
    subject = str(directory)
    if not _is_checkpoint(directory):
        reason = "is not a lolama checkpoint, so it is not replaced"
        raise UsageError(subject, reason, "choose another name")
    others = {entry.name for entry in os.scandir(directory)} - _OWN_FILES
    if others:
        reason = f"also holds {shown(min(others))}, which would go with it, so it is not replaced"
        raise UsageError(subject, reason, "move that, or choose another name")


def _is_checkpoint(directory: Path) -> bool:
    """Whether it is a real directory that calls itself one."""
    if os.path.islink(directory) or not os.path.isdir(directory):
        return False
    try:
        return read_json(directory / CONFIG_FILE).get("format") == FORMAT_NAME
    except ModelError:
        return False


def _exchange(one: Path, other: Path) -> None:
    """Let two directories change names, in one step where the system can do that.

    Elsewhere in two, and a process that is killed just between them leaves the old directory under a hidden
    name beside its place.
    """
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        failed = library.renamex_np(first, second, ctypes.c_uint(_RENAME_SWAP))
    elif hasattr(library, "renameat2"):
        here = ctypes.c_int(_AT_FDCWD)
        failed = library.renameat2(here, first, here, second, ctypes.c_uint(_RENAME_EXCHANGE))
    else:
        failed, _ = -1, ctypes.set_errno(errno.ENOSYS)
    if not failed:
        return
    number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(f"{one.name}-old")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _sync_directory(path: Path) -> None:
    """Force names, not only contents, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """A locked hidden directory beside ``directory``; removed unless it was renamed away."""
    _sweep(directory)
    while True:
        path = directory.with_name(f".{directory.name}.partial-{secrets.token_hex(8)}")
        os.mkdir(path)
        handle = _lock(path)
        if handle is not None:
            break
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _sweep(directory: Path) -> None:
    """Remove what killed writers of the same target left."""
    pattern = re.compile(re.escape(f".{directory.name}.partial-") + "[0-9a-f]{16}")
    for entry in list(os.scandir(directory.parent)):
        if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            handle = _lock(Path(entry.path))
            if handle is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(handle)


def _lock(path: Path) -> int | None:
    """Lock a directory for as long as the handle is open; None if another process has it, or removed it.

    Between making a directory and locking it a sweep may take it for a leftover. Then the lock fails, or
    succeeds on something that no longer has a name; either way the caller gets None and tries anew.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        return handle if lock_open_file(handle, path) else None
    except FileNotFoundError:
        return None


def disk_error(error: OSError, path: Path) -> UsageError | ResourceError:
    """What the system says while a file or folder is written beside ``path``, which it was to become."""
    subject = str(path)
    if error.errno in FULL_DISK:
        free = shutil.disk_usage(path.parent).free
        return ResourceError(
            subject,
            f"cannot be written: {error.strerror}, {free / 2**20:,.0f} MiB free",
            "free some space or choose another disk",
        )
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return exists_already(path)
    if error.errno == errno.ENOENT:  # the folder around it is there, and nothing can be made in it
        reason = f"{path.parent} takes no new folders"
        return UsageError(subject, reason, "choose another place")
    reason = f"cannot be written: {error.strerror or error}"
    kind = ResourceError if error.errno == errno.EROFS else UsageError
    return kind(subject, reason, "choose a place where you may write")
