from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_hub.folder.child_process import run_in_child


@pytest.mark.skipif(sys.platform != "linux", reason="the cap is held on Linux")
def test_row45_memory_is_capped() -> None:
    with pytest.raises(ResourceError, match=r"x\.bin: needs more than 0\.27 GB of memory"):
        run_in_child(bytearray, 2**29, subject="x.bin", memory=2**28)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_row_121_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(ResourceError, match=r"^x\.bin: "):
        run_in_child(os.getcwd, subject="x.bin", memory=2**28)


def test_row45_a_child_that_dies_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"x\.bin: cannot be converted: .* status -6"):
        run_in_child(os.abort, subject="x.bin", memory=2**28)


def test_row_93_the_child_runs_no_code_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in sys.stdlib_module_names:
        (tmp_path / f"{name}.py").write_text(f"open('RAN', 'a').write('{name} ')")
    monkeypatch.chdir(tmp_path)
    # As in an interactive session, in one that was begun with `python -m`, and with a careless PYTHONPATH.
    for entry in ("", str(tmp_path)):
        monkeypatch.syspath_prepend(entry)
    monkeypatch.setenv("PYTHONPATH", ":.")
    run_in_child(os.getcwd, subject="x.bin", memory=2**28)
    assert not (tmp_path / "RAN").exists(), (tmp_path / "RAN").read_text()
