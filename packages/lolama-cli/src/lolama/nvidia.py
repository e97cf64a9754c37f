"""NVIDIA's GPUs as the driver tells of them: torch is not imported, and nothing is started on any of them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

# These numbers are from cuda.h.
_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_FIRST_WITH_BFLOAT16 = 8  # Ampere


class UnusableError(Exception):
    """Why CUDA cannot be used here, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One that CUDA may use, in CUDA's order.

    Attributes:
        processor: Its name.
        memory_bytes: All of it.
        free_memory_bytes: What can be allocated; None if the driver's library for that is not there.
        native_bfloat16: Whether it computes in bfloat16.
    """

    processor: str
    memory_bytes: int
    free_memory_bytes: int | None
    native_bfloat16: bool


def gpus(cuda: str) -> list[Gpu]:
    """The GPUs that a program built for this version of CUDA, such as ``12.8``, can use.

    Raises:
        UnusableError: if there is none, saying why.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise UnusableError("Found no NVIDIA driver on your system") from None
    code = driver.cuInit(0)
    if code:
        raise UnusableError(f"the NVIDIA driver cannot be used: {_meaning(driver, code)}")
    newest = _integer(driver.cuDriverGetVersion)
    if newest // 1000 < int(cuda.partition(".")[0]):
        known = f"{newest // 1000}.{newest % 1000 // 10}"
        raise UnusableError(f"the NVIDIA driver knows CUDA {known}, and torch is built for {cuda}")
    count = _integer(driver.cuDeviceGetCount)
    if not count:
        raise UnusableError("No CUDA GPUs are available")
    return [_gpu(driver, index) for index in range(count)]


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device = _integer(driver.cuDeviceGet, index)
    name, place = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    size = ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    driver.cuDeviceGetPCIBusId(place, len(place), device)
    return Gpu(
        processor=name.value.decode("utf-8", "replace"),
        memory_bytes=size.value,
        free_memory_bytes=_free_memory(place),
        native_bfloat16=_integer(driver.cuDeviceGetAttribute, _MAJOR, device)
        >= _FIRST_WITH_BFLOAT16,
    )


def _integer(function: ctypes._NamedFuncPointer, *arguments: int) -> int:
    """What a function of the driver puts into the integer that is its first argument."""
    value = ctypes.c_int()
    function(ctypes.byref(value), *arguments)
    return value.value


def _meaning(driver: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return text.value.decode("utf-8", "replace") if text.value else f"error {code}"


class _Memory(ctypes.Structure):
    """``nvmlMemory_t`` of nvml.h."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _free_memory(place: ctypes.Array[ctypes.c_char]) -> int | None:
    """Bytes that are free, by NVML: CUDA tells them only after it has made a context, which takes memory."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if library.nvmlInit_v2():
        return None
    handle, memory = ctypes.c_void_p(), _Memory()
    failed = library.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(handle))
    failed = failed or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return None if failed else int(memory.free)
