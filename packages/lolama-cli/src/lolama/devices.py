"""The devices of this machine: what each is, and why it cannot be used.

torch would know, and takes seconds to import. What the system, the driver and torch's own files tell is told
without it; `torch_devices` asks it, where they do not tell enough.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from lolama import cpu, nvidia
from lolama.device import Device
from lolama.torch_build import TorchBuild, torch_build
from lolama_core.protocols.errors import UsageError


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
    processor = cpu.device(instruction_set=cpu.instruction_set(), threads=cpu.threads())
    return [processor, *_cuda(build), _mps()]


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
    return Device(name="mps", processor=cpu.processor(), native_bfloat16=True)
