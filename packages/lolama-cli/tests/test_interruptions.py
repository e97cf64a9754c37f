"""Downloads that are killed, shared and interrupted at random points, as processes.

The seed of each round stands in a failure. The variables below set how many rounds there are; the numbers
that docs/faults.md asks for take minutes and run in the nox session ``faults``.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm_program
from patience import LIMIT, until
from program import COMMAND, ENDLESS, environment
from warm_program import Run

from lolama_core.testing.promises import Promises
from lolama_hub.testing.faults import Fault
from lolama_hub.testing.repository import SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

KILLS = int(os.environ.get("LOLAMA_KILLS", "2"))
ROUNDS = int(os.environ.get("LOLAMA_ROUNDS", "1"))
INTERRUPTS = int(os.environ.get("LOLAMA_INTERRUPTS", "3"))
FIRST = int(os.environ.get("LOLAMA_FIRST", "0"))
PROCESSES = 8
NAME = "owner/model"
PULL = ("pull", "--yes", NAME)
WEIGHTS = random.Random(0).randbytes(80_000_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


Record = Callable[[str, int], None]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Notes in the report which seeds a test goes through."""
    return lambda what, count: record_property(what, f"{FIRST} to {FIRST + count - 1}")


@pytest.fixture(scope="module")
def hub() -> Iterator[StandInHub]:
    with StandInHub({NAME: {**SMALL_FILES, "model.safetensors": WEIGHTS}}) as hub:
        yield hub


def environment_of(hub: StandInHub, store: Path) -> dict[str, str]:
    store.parent.mkdir(exist_ok=True)
    own = {"LOLAMA_HOME": str(store), "HF_HOME": str(store.parent / "hf")}
    return {**hub.environment(), **own}


def start(hub: StandInHub, store: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Run it from the first moment of an interpreter on, which is one of those that are disturbed."""
    return subprocess.Popen(
        (*COMMAND, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(environment_of(hub, store)),
    )


def pull(hub: StandInHub, store: Path) -> Run:
    return warm_program.start(*PULL, env=environment_of(hub, store))


def is_whole(store: Path) -> bool:
    found = [path for path in store.rglob("model.safetensors") if ".partial" not in str(path)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found] == [SHA256]


def sent(hub: StandInHub) -> int:
    return sum(request.sent for request in hub.requests if request.place == "file")


def wait_for_bytes(hub: StandInHub, store: Path, size: int) -> None:
    until(lambda: sum(path.stat().st_size for path in store.rglob("model.safetensors*")) >= size)


def test_row_21_killed_at_random_points(hub: StandInHub, tmp_path: Path, record: Record) -> None:
    record("downloads killed at a random point", KILLS)
    for seed in range(FIRST, FIRST + KILLS):
        chance = random.Random(f"kill {seed}")
        store = tmp_path / str(seed) / "store"
        hub.rate, hub.requests = 120e6, []
        process = start(hub, store, *PULL)
        if chance.random() < 0.2:  # while it starts, plans and asks
            time.sleep(chance.uniform(0, 0.7))
        else:
            wait_for_bytes(hub, store, chance.randrange(1, len(WEIGHTS) - 2_000_000))
            time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert is_whole(store) or not visible(store), seed
        hub.rate = 0
        again = pull(hub, store)
        _, err = again.communicate()
        assert (again.returncode, err) == (0, b""), seed
        assert is_whole(store), seed
        leftovers = [path for path in store.rglob("*") if path.is_file() and is_leftover(path)]
        assert len(leftovers) <= 1, (seed, leftovers)
        assert sent(hub) <= 1.1 * len(WEIGHTS) or process.returncode == 0, (seed, sent(hub))


def visible(store: Path) -> list[Path]:
    return [path for path in store.glob("models/*/*") if len(path.name) == 40]


def is_leftover(path: Path) -> bool:
    return ".part" in path.name or "partial" in str(path) or "locks" in str(path)


def test_row_23_eight_processes_and_one_model(
    hub: StandInHub, tmp_path: Path, record: Record
) -> None:
    record(f"rounds of {PROCESSES} processes that pull one model", ROUNDS)
    for seed in range(FIRST, FIRST + ROUNDS):
        store = tmp_path / str(seed) / "store"
        hub.rate, hub.requests = 0, []
        processes = [pull(hub, store) for _ in range(PROCESSES)]
        for process in processes:
            process.communicate(timeout=2 * LIMIT)
            assert process.returncode == 0, seed
        assert is_whole(store), seed
        assert sent(hub) == len(WEIGHTS), seed
        assert not [path for path in store.rglob("*") if path.is_file() and is_leftover(path)], seed


def downloading(hub: StandInHub, folder: Path) -> Iterator[tuple[int, Run]]:
    """Downloads at a random point each, with their seeds. None comes to its end."""
    for seed in range(FIRST, FIRST + INTERRUPTS):
        chance = random.Random(f"interrupt {seed}")
        store = folder / str(seed) / "store"
        hub.rate, hub.faults = 20e6, [Fault("stall", after=len(WEIGHTS) - 1)]
        process = pull(hub, store)
        wait_for_bytes(hub, store, chance.randrange(1, len(WEIGHTS) // 2))
        time.sleep(chance.uniform(0, 0.3))
        yield seed, process


def loading(
    hub: StandInHub, model: Path, folder: Path
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Runs at a random point of start, load and generation each, with their seeds."""
    for seed in range(FIRST, FIRST + INTERRUPTS):
        chance = random.Random(f"load {seed}")
        process = start(hub, folder / "store", "generate", "-m", model, *ENDLESS)
        time.sleep(chance.uniform(0.3, 3.0))
        yield seed, process


def test_row_22_ctrl_c_at_random_points_of_a_download(
    hub: StandInHub, tmp_path: Path, record: Record
) -> None:
    record("Ctrl-C at a random point of a download", INTERRUPTS)
    for seed, process in downloading(hub, tmp_path):
        interrupted(process, seed)
        assert not visible(tmp_path / str(seed) / "store"), seed


def test_row_22_ctrl_c_at_random_points_of_a_load(
    hub: StandInHub, endless: Path, tmp_path: Path, record: Record
) -> None:
    record("Ctrl-C at a random point of start, load and generation", INTERRUPTS)
    for seed, process in loading(hub, endless, tmp_path):
        interrupted(process, seed)


def interrupted(process: subprocess.Popen[bytes] | Run, seed: int) -> None:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (130, b""), (seed, process.returncode, err)


@pytest.mark.promise
def test_row_22_ctrl_c_at_random_points_ends_it_within_a_second(
    hub: StandInHub, endless: Path, tmp_path: Path, promises: Promises
) -> None:
    for seed, process in downloading(hub, tmp_path):
        with promises.within(1, "Ctrl-C at a random point of a download", seed):
            interrupted(process, seed)
    for seed, started in loading(hub, endless, tmp_path):
        with promises.within(1, "Ctrl-C at a random point of start, load and generation", seed):
            interrupted(started, seed)
