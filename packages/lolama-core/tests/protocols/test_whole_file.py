"""Files that appear in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lolama_core.protocols.whole_file import (
    remove_unfinished,
    try_to_begin,
    whole_file,
    write_whole,
)


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"old and longer")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


def test_a_name_that_is_taken_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_whole(path, b"new", replace=False)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("exists", [True, False])
def test_where_there_are_no_links_a_taken_name_is_seen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    def no_links(*names: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "notes"
    if exists:
        path.symlink_to("nowhere")  # a name that is taken, though nothing is there
        with pytest.raises(FileExistsError):
            write_whole(path, b"new", replace=False)
        assert path.is_symlink()
    else:
        write_whole(path, b"new", replace=False)
        assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "notes"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]


def test_a_private_file_is_never_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    write_whole(path, b"mine", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "no+tes"
    left, young = tmp_path / f".no+tes.{'0a' * 8}", tmp_path / f".no+tes.{'1b' * 8}"
    others = [
        tmp_path / name for name in (".no+tes", ".no+tes.0a", f".nootes.{'0a' * 8}", "no+tes")
    ]
    folder = tmp_path / f".no+tes.{'2c' * 8}"
    folder.mkdir()
    for file in (left, young, *others):
        file.write_bytes(b"text")
    for entry in (left, folder, *others):
        os.utime(entry, (1, 1))
    with whole_file(path) as new:
        new.write(b"new")
        at_work = [entry for entry in tmp_path.iterdir() if entry.stat().st_size == 3]
        os.utime(at_work[0], (1, 1))
        remove_unfinished(path)
    assert {*tmp_path.iterdir()} == {young, folder, *others}
    assert path.read_bytes() == b"new"


def test_what_is_only_tried_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    try_to_begin(path)
    path.write_bytes(b"old")
    try_to_begin(path)
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]
    for wrong in (tmp_path / "no" / "file", path / "file", tmp_path / ("x" * 250)):
        with pytest.raises(OSError, match=r"No such file|Not a directory|File name too long"):
            try_to_begin(wrong)
