from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lolama_core.files.checkpoint_reader import FileCheckpoint, open_checkpoint
from lolama_core.files.checkpoint_writer import write_checkpoint
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.files.safetensors_writer import ROOM_BYTES, SafetensorsWriter
from lolama_core.files.tensor_file import DTYPES
from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.testing.checkpoint import tiny_config


def write(directory: Path, tensors: dict[str, Tensor]) -> None:
    write_checkpoint(directory, tiny_config(), tensors.items(), tokenizer_json="{}")


def read_back(directory: Path) -> dict[str, Tensor]:
    return dict(FileCheckpoint(open_checkpoint(directory)).tensors())


def write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    with open(path, "x+b", buffering=0) as file:
        writer = SafetensorsWriter(file)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.finish()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "c": torch.tensor(2.0)}
    write(tmp_path / "m", tensors)
    read = read_back(tmp_path / "m")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_safetensors_reads_every_dtype(tmp_path: Path) -> None:
    """Also with sizes of which none is a multiple of four: many readers need aligned tensors."""
    tensors = {
        f"{name}.{size}": torch.arange(size).to(dtype)
        for size in (0, 1, 3, 7, 8, 101)
        for name, dtype in DTYPES.items()
    }
    write_file(tmp_path / "m.safetensors", tensors)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert set(file.keys()) == tensors.keys()
        assert file.metadata() == {"format": "pt"}
        for name, tensor in tensors.items():
            assert file.get_tensor(name).dtype == tensor.dtype
            assert torch.equal(file.get_tensor(name).double(), tensor.double())
    for name, info in SafetensorsFile(tmp_path / "m.safetensors").header().items():
        assert info.begin % tensors[name].element_size() == 0


@pytest.mark.parametrize("count", [0, 1, 490, 3000])
def test_any_number_of_tensors(tmp_path: Path, count: int) -> None:
    """More than the reserved header has room for: the data move up."""
    tensors = {
        f"layers.{number}.attention.q_proj.weight": torch.randn(number % 50)
        for number in range(count)
    }
    write_file(tmp_path / "m.safetensors", tensors)
    file = SafetensorsFile(tmp_path / "m.safetensors")
    assert all(torch.equal(file.read(name), tensor) for name, tensor in tensors.items())
    assert file.header().keys() == tensors.keys()


@pytest.mark.parametrize("count", [2, 600])
def test_row_211_what_is_mapped_begins_evenly(tmp_path: Path, count: int) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {f"{n}" + "x" * 101: torch.ones(64 if n % 7 else 1, 8) for n in range(count)}
    write_file(path, {"odd": torch.ones(2), **tensors})
    file = SafetensorsFile(path)
    even = [name for name, tensor in tensors.items() if tensor.nbytes % 64 == 0]
    assert even and all(file.map(name).data_ptr() % 64 == 0 for name in even)
    assert all(torch.equal(file.map(name), tensor) for name, tensor in tensors.items())


def test_moving_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces smaller than the distance, larger than it, and one that does not divide the data."""
    tensors = {f"{number}.{'x' * 200}": torch.randn(100) for number in range(400)}
    for size in (1000, 4096, 40_000, 10**6):
        monkeypatch.setattr("lolama_core.files.safetensors_writer._MOVE_BYTES", size)
        path = tmp_path / f"{size}.safetensors"
        write_file(path, tensors)
        assert SafetensorsFile(path).header()["0." + "x" * 200].begin == 0
        assert int.from_bytes(path.read_bytes()[:8], "little") > ROOM_BYTES
        read = SafetensorsFile(path).read
        assert all(torch.equal(read(name), tensor) for name, tensor in tensors.items())


def test_any_strides(tmp_path: Path) -> None:
    base = torch.randn(6, 8)
    tensors = {"t": base.t(), "s": base[1::2, ::3], "e": base[:1].expand(5, 8), "w": base[0]}
    write(tmp_path / "m", tensors)
    read = read_back(tmp_path / "m")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_tensors_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """Each is released before the next is asked for."""
    import weakref

    previous: list[weakref.ref[Tensor]] = []

    def stream() -> Iterator[tuple[str, Tensor]]:
        for number in range(5):
            assert sum(reference() is not None for reference in previous) <= 1
            tensor = torch.randn(64)
            previous.append(weakref.ref(tensor))
            yield str(number), tensor

    write_checkpoint(tmp_path / "m", tiny_config(), stream(), tokenizer_json="{}")


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    """Another user of a shared folder must be able to read the model."""
    write(tmp_path / "m", {"a": torch.ones(1)})
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "d").stat().st_mode
    for path in (tmp_path / "m").iterdir():
        assert path.stat().st_mode == (tmp_path / "f").stat().st_mode


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_row81_an_existing_target_is_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "m"
    if kind == "directory":
        target.mkdir()
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to("absent")
    with pytest.raises(UsageError, match="exists already; choose another name, or remove it first"):
        write(target, {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == [target]


def test_the_parent_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder to write it in does not exist"):
        write(tmp_path / "absent" / "m", {})
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    """Two writers of one name: the first to finish has it, whole."""

    def slow() -> Iterator[tuple[str, Tensor]]:
        yield "slow", torch.ones(1)
        write(tmp_path / "m", {"fast": torch.ones(1)})

    with pytest.raises(UsageError, match="exists already"):
        write_checkpoint(tmp_path / "m", tiny_config(), slow(), tokenizer_json="{}")
    assert read_back(tmp_path / "m").keys() == {"fast"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("tensors", "error", "reason"),
    [
        ([("a", torch.ones(1)), ("a", torch.ones(1))], UsageError, "given twice"),
        ([("__metadata__", torch.ones(1))], UsageError, "reserved"),
        ([("a", torch.ones(1, dtype=torch.int8))], ModelError, "'a' is I8; weights are"),
        ([("a", torch.ones(1, dtype=torch.complex64))], ModelError, "is torch.complex64"),
        ([("a", torch.tensor([1.0, float("nan")]))], ModelError, "'a' holds NaN"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(
    tmp_path: Path, tensors: list[tuple[str, Tensor]], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        write_checkpoint(tmp_path / "m", tiny_config(), tensors, tokenizer_json="{}")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_configuration_is_refused_first(tmp_path: Path) -> None:
    config = tiny_config()
    config["dtype"] = "int4"
    with pytest.raises(ModelError, match="dtype is 'int4'"):
        write_checkpoint(tmp_path / "m", config, [], tokenizer_json="{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_row80_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"cannot be written: .*MiB free; free some space"):
        write(tmp_path / "m", {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_row80_a_write_that_stops_halfway(tmp_path: Path) -> None:
    """The system itself cuts a write short: the limit on file sizes does it without a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            write(tmp_path / "m", {"a": torch.randn(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="choose a place where you may write"):
        write(tmp_path / "m", {})


WRITER = """
import sys, time, torch
from pathlib import Path
from lolama_core.files.checkpoint_writer import write_checkpoint
from lolama_core.testing.checkpoint import tiny_config

def tensors():
    yield "a", torch.ones(1000)
    print("half", flush=True)
    time.sleep(60)

write_checkpoint(Path(sys.argv[1]), tiny_config(), tensors(), tokenizer_json="{}")
"""


def half_written(target: Path) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    return process


def test_row80_killed_writer_is_swept(tmp_path: Path) -> None:
    """Its leavings stay hidden, and go with the next write of the same name; others are not touched."""
    target, other = tmp_path / "m", tmp_path / ".m.partial-of-mine"
    other.mkdir()
    writer = half_written(target)
    try:
        assert not target.exists()
        [leftover] = [path for path in tmp_path.iterdir() if path != other]
        write(tmp_path / "n", {})
        assert leftover.exists()
        # A living writer of the same name keeps what is its own.
        write(target, {"b": torch.ones(1)})
        assert leftover.exists()
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert leftover.exists()
    target.rename(tmp_path / "old")
    write(target, {"c": torch.ones(1)})
    assert not leftover.exists()
    assert other.exists()
    assert read_back(target).keys() == {"c"}
    assert read_back(tmp_path / "old").keys() == {"b"}


def replace_with(directory: Path, tensors: dict[str, Tensor]) -> None:
    write_checkpoint(directory, tiny_config(), tensors.items(), tokenizer_json="{}", replace=True)


def test_row81_a_checkpoint_is_replaced_only_when_asked(tmp_path: Path) -> None:
    replace_with(tmp_path / "m", {"a": torch.ones(1)})  # where there is none, too
    with pytest.raises(UsageError, match="exists already"):
        write(tmp_path / "m", {"b": torch.ones(1)})
    replace_with(tmp_path / "m", {"b": torch.ones(1)})
    assert read_back(tmp_path / "m").keys() == {"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_row81_what_is_no_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.json").write_text('{"model_type": "llama"}')
    write(tmp_path / "m", {"a": torch.ones(1)})
    (tmp_path / "link").symlink_to(tmp_path / "m")
    (tmp_path / "file").write_text("mine")
    for name in ("home", "link", "file"):
        with pytest.raises(UsageError, match="is not a lolama checkpoint, so it is not replaced"):
            replace_with(tmp_path / name, {"b": torch.ones(1)})
    assert read_back(tmp_path / "m").keys() == {"a"}
    assert (tmp_path / "file").read_text() == "mine"


def test_row161_a_file_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "m", {"a": torch.ones(1)})
    notes = tmp_path / "m" / "notes.md"
    notes.write_text("mine")
    with pytest.raises(UsageError, match=r"also holds 'notes\.md', which would go with it"):
        replace_with(tmp_path / "m", {"b": torch.ones(1)})
    assert notes.read_text() == "mine"
    assert read_back(tmp_path / "m").keys() == {"a"}
    notes.unlink()
    replace_with(tmp_path / "m", {"b": torch.ones(1)})
    assert read_back(tmp_path / "m").keys() == {"b"}


def test_row80_a_replacement_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    replace_with(tmp_path / "m", {"a": torch.ones(1)})
    with pytest.raises(ModelError, match="NaN"):
        replace_with(tmp_path / "m", {"b": torch.tensor([float("nan")])})
    assert read_back(tmp_path / "m").keys() == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_system_that_cannot_exchange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_with(tmp_path / "m", {"a": torch.ones(1)})
    monkeypatch.setattr("lolama_core.files.checkpoint_writer._RENAME_EXCHANGE", 1 << 30)  # EINVAL
    monkeypatch.setattr("lolama_core.files.checkpoint_writer._RENAME_SWAP", 1 << 30)
    replace_with(tmp_path / "m", {"b": torch.ones(1)})
    assert read_back(tmp_path / "m").keys() == {"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1,)])
def test_row_104_a_tensor_that_is_the_negative_of_its_memory(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = torch.randn(shape)
    with open(tmp_path / "m.safetensors", "x+b", buffering=0) as file:
        writer = SafetensorsWriter(file)
        writer.add("lazy", torch._neg_view(values))
        writer.add("part", torch._neg_view(values)[..., 1:])
        writer.finish()
    with safe_open(tmp_path / "m.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor("lazy"), -values)
        assert torch.equal(stored.get_tensor("part"), -values[..., 1:])
