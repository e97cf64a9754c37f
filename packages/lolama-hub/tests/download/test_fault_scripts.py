"""Downloads under random scripts of faults: the published bytes by sha256, or one typed error.

The number of a script is its seed and stands in every failure. LOLAMA_FAULT_SCRIPTS sets how many there are,
LOLAMA_FAULT_FIRST which is the first.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import LolamaError
from lolama_core.testing.promises import Promises
from lolama_hub import HuggingFaceSource
from lolama_hub.download.retries import ATTEMPTS
from lolama_hub.testing.faults import random_script
from lolama_hub.testing.repository import SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

SCRIPTS = int(os.environ.get("LOLAMA_FAULT_SCRIPTS", "12"))
FIRST = int(os.environ.get("LOLAMA_FAULT_FIRST", "0"))
NAME = "owner/model"
WEIGHTS = random.Random(0).randbytes(1_500_000)
FILES = {**SMALL_FILES, "model.safetensors": WEIGHTS}
IO = FileCheckpointIO()
# The commit, the list of files, and of each file its head, its address and itself.
REQUESTS = 2 + 3 * len(FILES)


def is_published(directory: Path) -> bool:
    return all(
        hashlib.sha256((directory / name).read_bytes()).digest() == hashlib.sha256(content).digest()
        for name, content in FILES.items()
    )


@pytest.fixture
def hub(stand_in_hub: Callable[..., StandInHub], monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    """One that is soon given up when it stalls, and whose wishes for patience are short."""
    hub = stand_in_hub({NAME: FILES})
    monkeypatch.setattr("lolama_hub.download.retries.LONGEST_WAIT", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    return hub


def fetch(source: HuggingFaceSource, told: str) -> LolamaError | None:
    """Download the model; what it was refused with, if it was."""
    try:
        directory = source.fetch(source.plan(NAME, IO), IO, confirm=lambda _: True)
    except LolamaError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
    assert is_published(directory), told
    return None


def test_rows_01_to_17_random_scripts(
    hub: StandInHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("random fault scripts", f"{FIRST} to {FIRST + SCRIPTS - 1}")
    outcomes = {"fetched": 0, "refused": 0}
    for seed in range(FIRST, FIRST + SCRIPTS):
        root = tmp_path / str(seed) / "store"
        source = HuggingFaceSource(store=root)
        script, hub.requests = random_script(seed, len(WEIGHTS)), []
        hub.faults = script
        told = f"script {seed}: {'; '.join(map(str, script))}"
        problem = fetch(source, told)
        outcomes["fetched" if problem is None else "refused"] += 1
        assert len(hub.requests) <= ATTEMPTS * REQUESTS, told
        if problem is not None:
            assert problem.exit_code in (3, 4, 5, 6), told
            assert str(problem).isprintable() and len(str(problem)) < 500, told
            assert not any(model.complete for model in source.stored(IO)), told
        # Whatever was left behind is no obstacle, and nothing lies outside the store.
        hub.faults = []
        with monkeypatch.context() as patched:  # a busy machine is no stalled hub
            patched.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", hub.timeout)
            patched.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", hub.timeout)
            assert fetch(source, told) is None, told
        assert [path.name for path in root.parent.iterdir()] == ["store"], told
        assert not list(tmp_path.rglob("*escaped*")), told
    assert min(outcomes.values()) > SCRIPTS // 10, outcomes


@pytest.mark.promise
def test_rows_01_to_17_a_random_script_is_got_over_or_given_up_soon(
    hub: StandInHub, tmp_path: Path, promises: Promises
) -> None:
    for seed in range(FIRST, FIRST + SCRIPTS):
        source = HuggingFaceSource(store=tmp_path / str(seed) / "store")
        hub.faults = random_script(seed, len(WEIGHTS))
        with promises.within(12, "a random script of faults", seed):
            fetch(source, f"script {seed}")
