"""The devices of this machine: what each is, and why it cannot be used."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

import lolama_core
from lolama.providers import one_line

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Device:
    """A place where models could run.

    A field is None where it does not apply, or the system does not tell.

    Attributes:
        name: As ``--device`` takes it.
        problem: Why it cannot be used here; None if it can.
        processor: The model of the processor or GPU.
        instruction_set: The best one that torch uses here; of a CPU.
        cores: Logical ones, of a CPU.
        threads: How many of them torch uses.
        memory_bytes: All of it; of an Apple GPU, what the system recommends to use at most.
        free_memory_bytes: What can still be allocated.
        native_bfloat16: Whether a GPU computes in bfloat16 without emulating it.
    """

    name: str
    problem: str | None = None
    processor: str | None = None
    instruction_set: str | None = None
    cores: int | None = None
    threads: int | None = None
    memory_bytes: int | None = None
    free_memory_bytes: int | None = None
    native_bfloat16: bool | None = None


def all_devices() -> list[Device]:
    """cpu, cuda (one for each GPU) and mps, usable or not. Starts CUDA where there is one.

    Raises:
        Exception: of any kind, if torch is broken.
    """
    return [_cpu(), *_cuda(), _mps()]


def available_memory(device: torch.device) -> int | None:
    """Bytes that a process can get on ``device``, what the system caches included; None if it does not tell.

    A limit that a container sets is not looked at.
    """
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return lolama_core.free_memory(device) or None


def _cpu() -> Device:
    import torch

    return Device(
        name="cpu",
        processor=_processor(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        memory_bytes=_memory(),
        free_memory_bytes=available_memory(torch.device("cpu")),
    )


def _processor() -> str:
    """The processor's model as its maker calls it, or at least its architecture."""
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.machine()  # platform.processor() would start a program that PATH names


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _cuda() -> Iterator[Device]:
    import torch

    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        yield Device(name="cuda", problem="this torch is built without it")
        return
    try:
        # Unlike is_available() it says what is wrong.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        yield Device(name="cuda", problem=str(error).partition(". ")[0])
        return
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        try:
            with torch.cuda.device(index):
                properties = torch.cuda.get_device_properties(index)
                yield Device(
                    name=name,
                    processor=properties.name,
                    memory_bytes=properties.total_memory,
                    free_memory_bytes=lolama_core.free_memory(torch.device(name)),
                    native_bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
                )
        except (
            RuntimeError
        ) as error:  # one that another program keeps for itself, or that has failed
            yield Device(name=name, problem=one_line(error))


def _mps() -> Device:
    import torch

    if sys.platform != "darwin":
        return Device(name="mps", problem="only on macOS")
    if not torch.backends.mps.is_built():
        return Device(name="mps", problem="this torch is built without it")
    if not torch.backends.mps.is_available():
        return Device(name="mps", problem="this Mac or its macOS does not support it")
    return Device(
        name="mps",
        processor=_processor(),
        memory_bytes=torch.mps.recommended_max_memory(),
        native_bfloat16=torch.backends.mps.is_macos_or_newer(14, 0),
    )
