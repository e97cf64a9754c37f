"""The CPU of this machine, as the system tells of it without torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from lolama.device import Device


def device(*, instruction_set: str | None, threads: int | None) -> Device:
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


def instruction_set() -> str | None:
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


def threads() -> int | None:
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
