"""Locks between processes on what is open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lolama_core.protocols.file_lock import lock_open_file


def test_one_holder_at_a_time_has_a_lock(tmp_path: Path) -> None:
    first, second = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    assert lock_open_file(first, tmp_path)
    assert not lock_open_file(second, tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    os.close(first)
    third = os.open(tmp_path, os.O_RDONLY)
    assert lock_open_file(third, tmp_path)
    os.close(third)


def test_a_lock_on_what_lost_its_name_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    handle = os.open(path, os.O_RDONLY)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        lock_open_file(handle, path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
