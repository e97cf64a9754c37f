"""The devices of this machine: what each is, and why it cannot be used.

torch would know, and takes seconds to import. What the system, the driver and torch's own files tell is told
without it; `torch_devices` asks it, where they do not tell enough.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from lolama import nvidia
from lolama.torch_build import TorchBuild, torch_build
from lolama_core.protocols.errors import UsageError


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


def all_devices(*, ask_torch: bool = False) -> list[Device]:
    """cpu, cuda (one for each GPU) and mps, usable or not.

    Args:
        ask_torch: Import torch and ask it, whatever can be told without. CUDA is started where there is one.

    Raises:
        Exception: of any kind, if torch has to be asked and is broken.
    """
    build = None if ask_torch else torch_build()
    if build is None or build.other or not _tells_of_metal():
        from lolama import torch_devices

        return torch_devices.all_devices()
    told = told_of_cpu(instruction_set=_instruction_set(), threads=_threads())
    return [told, *_cuda(build), _mps()]


def default_device(devices: list[Device]) -> Device:
    """The one that a model goes to if nobody names one: CUDA, then Apple's GPU, then the CPU."""
    usable = [device for device in devices if device.problem is None]
    return next((device for device in usable if device.name != "cpu"), devices[0])


def check_device(name: str) -> None:
    """Refuse a device that is not here, before torch is imported to look for it.

    Args:
        name: As ``--device`` takes it.

    Raises:
        UsageError: saying why it cannot be used.
    """
    if name in ("auto", "cpu"):
        return
    kind, _, index = name.partition(":")
    of_kind = [device for device in all_devices() if device.name.partition(":")[0] == kind]
    number = int(index or 0)
    found = of_kind[number] if number < len(of_kind) else None
    if found is None or found.problem is not None:
        problem = f": {found.problem}" if found is not None else ""
        reason = f"{name} is not available here{problem}"
        raise UsageError("device", reason, "use cpu, or leave it out")


def told_of_cpu(*, instruction_set: str | None, threads: int | None) -> Device:
    """What the system tells of the CPU, beside what torch makes of it."""
    return Device(
        name="cpu",
        processor=processor(),
        instruction_set=instruction_set,
        cores=os.cpu_count(),
        threads=threads,
        memory_bytes=_memory(),
        # What the system caches included. A limit that a container sets is not looked at.
        free_memory_bytes=int(psutil.virtual_memory().available),
    )


def processor() -> str:
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


def _instruction_set() -> str | None:
    """The best one that torch has code for and the processor has, by the rule that torch goes by on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    except OSError:
        return None
    if flags is None:  # no x86
        return None
    limit = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()
    if {"avx512vl", "avx512bw", "avx512dq", "fma"} <= flags and limit not in ("avx2", "default"):
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags and limit != "default" else "DEFAULT"


def _threads() -> int | None:
    """How many torch will use, by the rule that its libraries go by on x86 and Linux: a thread for each core.

    Or fewer, if a variable says so. Of the cores, those that this process may use.
    """
    try:
        folders = [
            Path(f"/sys/devices/system/cpu/cpu{number}/topology")
            for number in os.sched_getaffinity(0)
        ]
        cores = {
            ((folder / "physical_package_id").read_text(), (folder / "core_id").read_text())
            for folder in folders
        }
    except (AttributeError, OSError):  # no Linux
        return None
    if platform.machine() != "x86_64":
        return None
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "").partition(",")[0].strip()
        if asked.isdecimal() and int(asked):
            return min(int(asked), len(cores))
    return len(cores)


def _cuda(build: TorchBuild) -> Iterator[Device]:
    if build.cuda is None:
        yield Device(name="cuda", problem="this torch is built without it")
        return
    try:
        for index, gpu in enumerate(nvidia.gpus(build.cuda)):
            yield Device(
                name=f"cuda:{index}",
                processor=gpu.processor,
                memory_bytes=gpu.memory_bytes,
                free_memory_bytes=gpu.free_memory_bytes,
                native_bfloat16=gpu.native_bfloat16,
            )
    except nvidia.UnusableError as error:
        yield Device(name="cuda", problem=str(error))


def _tells_of_metal() -> bool:
    """Whether it is known without torch if Apple's GPU is usable: not on Intel, nor before macOS 14."""
    if sys.platform != "darwin":
        return True
    major = platform.mac_ver()[0].partition(".")[0]
    return platform.machine() == "arm64" and major.isdecimal() and int(major) >= 14


def _mps() -> Device:
    if sys.platform != "darwin":
        return Device(name="mps", problem="only on macOS")
    return Device(name="mps", processor=processor(), native_bfloat16=True)
