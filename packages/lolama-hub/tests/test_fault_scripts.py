"""Downloads under random scripts of faults: the published bytes by sha256, or one typed error.

The number of a script is its seed and stands in every failure. LOLAMA_FAULT_SCRIPTS sets how many there are,
LOLAMA_FAULT_FIRST which is the first.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lolama_core.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import LolamaError
from lolama_hub import HuggingFaceSource
from lolama_hub.testing.faults import random_script
from lolama_hub.testing.repository import SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

SCRIPTS = int(os.environ.get("LOLAMA_FAULT_SCRIPTS", "12"))
FIRST = int(os.environ.get("LOLAMA_FAULT_FIRST", "0"))
NAME = "owner/model"
WEIGHTS = random.Random(0).randbytes(1_500_000)
FILES = {**SMALL_FILES, "model.safetensors": WEIGHTS}
IO = FileCheckpointIO()
SECONDS = 12.0


def is_published(directory: Path) -> bool:
    return all(
        hashlib.sha256((directory / name).read_bytes()).digest() == hashlib.sha256(content).digest()
        for name, content in FILES.items()
    )


def test_rows_01_to_17_random_scripts(
    stand_in_hub: Callable[..., StandInHub],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("random fault scripts", f"{FIRST} to {FIRST + SCRIPTS - 1}")
    hub = stand_in_hub({NAME: FILES})
    monkeypatch.setattr("lolama_hub.retries.LONGEST_WAIT", 0.5)
    outcomes = {"fetched": 0, "refused": 0}
    for seed in range(FIRST, FIRST + SCRIPTS):
        root = tmp_path / str(seed) / "store"
        source = HuggingFaceSource(store=root)
        script = hub.faults = random_script(seed, len(WEIGHTS))
        told = f"script {seed}: {'; '.join(map(str, script))}"
        started = time.monotonic()
        problem = None
        try:
            directory = source.fetch(source.plan(NAME, IO), IO, confirm=lambda _: True)
            assert is_published(directory), told
            outcomes["fetched"] += 1
        except LolamaError as error:
            problem = error
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < SECONDS, told
        if problem is not None:
            assert problem.exit_code in (3, 4, 5, 6), told
            assert str(problem).isprintable() and len(str(problem)) < 500, told
            assert not any(model.complete for model in source.stored(IO)), told
        # Whatever was left behind is no obstacle, and nothing lies outside the store.
        hub.faults = []
        assert is_published(source.fetch(source.plan(NAME, IO), IO, confirm=lambda _: True)), told
        assert [path.name for path in root.parent.iterdir()] == ["store"], told
        assert not list(tmp_path.rglob("*escaped*")), told
    assert min(outcomes.values()) > SCRIPTS // 10, outcomes
