"""How much memory is free, by the system, a container and the process's own limit."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch

from lolama_core.model import free_memory as module
from lolama_core.model.free_memory import free_memory

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a system with 8 GB, of which 3 are available, without a container."""
    monkeypatch.setattr(module, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(module, "_CGROUP", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal: 8000000 kB\nMemFree: 100000 kB\nMemAvailable: 3000000 kB\n"
    )
    return tmp_path


def container(system: Path, most: str) -> None:
    (system / "cgroup" / "memory.max").write_text(f"{most}\n")
    (system / "cgroup" / "memory.current").write_text("1500000000\n")
    (system / "cgroup" / "memory.stat").write_text("anon 9\ninactive_file 400000000\nactive 1\n")


def test_what_the_system_would_give_up_counts(system: Path) -> None:
    assert free_memory(CPU) == 3_000_000 * 1024


@pytest.mark.parametrize(("most", "free"), [("2000000000", 900_000_000), ("max", 3_072_000_000)])
def test_a_container_may_have_less(system: Path, most: str, free: int) -> None:
    container(system, most)
    assert free_memory(CPU) == free


def test_a_full_container_has_none(system: Path) -> None:
    container(system, "1000000000")
    assert free_memory(CPU) == 0


def test_nobody_tells(system: Path) -> None:
    (system / "proc" / "meminfo").write_text("nonsense")
    assert free_memory(CPU) == 0
    assert free_memory(torch.device("meta")) == 0


def test_the_limit_of_the_process_counts(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system / "proc" / "self" / "statm").write_text("1000 800 300 1 0 700 0\n")
    pages = resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000 * pages + 123, -1))
    assert free_memory(CPU) == 123
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, -1))
    assert free_memory(CPU) == 3_000_000 * 1024


@pytest.mark.parametrize(("mode", "free"), [("0", 3_000_000), ("2", 500_000), ("x", 3_000_000)])
def test_a_system_may_promise_no_more_than_it_has(system: Path, mode: str, free: int) -> None:
    with open(system / "proc" / "meminfo", "a", encoding="ascii") as described:
        described.write("CommitLimit:  4000000 kB\nCommitted_AS: 3500000 kB\n")
    (system / "proc" / "sys" / "vm").mkdir(parents=True)
    (system / "proc" / "sys" / "vm" / "overcommit_memory").write_text(f"{mode}\n")
    assert free_memory(CPU) == free * 1024
