"""The devices of this machine as torch finds them: it is imported, and CUDA is started where there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch

import lolama_core
from lolama import cpu
from lolama.device import Device
from lolama_core.protocols.errors import one_line


def all_devices() -> list[Device]:
    """cpu, cuda (one for each GPU) and mps, usable or not."""
    return [_cpu(), *_cuda(), _mps()]


def _cpu() -> Device:
    return cpu.device(
        instruction_set=torch.backends.cpu.get_cpu_capability(), threads=torch.get_num_threads()
    )


def _cuda() -> Iterator[Device]:
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
        # Another program keeps the device for itself, or the device has failed.
        except RuntimeError as error:
            yield Device(name=name, problem=one_line(error))


def _mps() -> Device:
    if sys.platform != "darwin":
        return Device(name="mps", problem="only on macOS")
    if not torch.backends.mps.is_built():
        return Device(name="mps", problem="this torch is built without it")
    if not torch.backends.mps.is_available():
        return Device(name="mps", problem="this Mac or its macOS does not support it")
    return Device(
        name="mps",
        processor=cpu.processor(),
        memory_bytes=torch.mps.recommended_max_memory(),
        native_bfloat16=torch.backends.mps.is_macos_or_newer(14, 0),
    )
