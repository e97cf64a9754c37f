"""What the NVIDIA driver tells, with one made for the purpose: `nvidia` calls it as it calls a real one."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from lolama import nvidia
from lolama.nvidia import Gpu, UnusableError

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

# Declared as in cuda.h and nvml.h.
DRIVER = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned int flags) { return flags ? 1 : INIT; }
int cuGetErrorString(int code, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 10 + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 10 ? "NVIDIA H200" : "Tesla T4", length); return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = device == 10 ? 150000000000 : 16000000000; return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute != 75) return 1;
    *value = device == 10 ? 9 : 7; return 0;
}
int cuDeviceGetPCIBusId(char *text, int length, int device) {
    strncpy(text, device == 10 ? "0000:0A:00.0" : "0000:0B:00.0", length); return 0;
}
"""
NVML = """
#include <string.h>
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *place, void **handle) {
    static int first;
    if (strcmp(place, "0000:0A:00.0")) return 6;
    *handle = &first; return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, nvmlMemory_t *memory) {
    memory->total = 150000000000; memory->free = 149000000000; memory->used = 1000000000; return 0;
}
"""


def compiled(folder: Path, name: str, source: str, *flags: str) -> Path:
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    text.write_text(source)
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", *flags, text, "-o", library], check=True)
    return library


def with_driver(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, init: int = 0, count: int = 2
) -> None:
    flags = (f"-DINIT={init}", f"-DCOUNT={count}")
    driver = compiled(folder, f"cuda-{init}-{count}", DRIVER, *flags)
    libraries = {"libcuda.so.1": driver, "libnvidia-ml.so.1": compiled(folder, "nvml", NVML)}
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load(str(libraries[name])))


def test_row_184_gpus_are_told_by_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_driver(monkeypatch, tmp_path)
    assert nvidia.gpus("12.6") == [
        Gpu(
            processor="NVIDIA H200",
            memory_bytes=150_000_000_000,
            free_memory_bytes=149_000_000_000,
            native_bfloat16=True,
        ),
        Gpu(
            processor="Tesla T4",
            memory_bytes=16_000_000_000,
            free_memory_bytes=None,
            native_bfloat16=False,
        ),
    ]


@pytest.mark.parametrize(
    ("init", "count", "cuda", "why"),
    [
        (100, 2, "12.6", "no CUDA-capable device is detected"),
        (0, 0, "12.6", "No CUDA GPUs are available"),
        (0, 2, "13.0", "knows CUDA 12.8, and torch is built for 13.0"),
    ],
)
def test_row_184_why_cuda_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, init: int, count: int, cuda: str, why: str
) -> None:
    with_driver(monkeypatch, tmp_path, init=init, count=count)
    with pytest.raises(UnusableError, match=why):
        nvidia.gpus(cuda)


def test_row_184_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(UnusableError, match="Found no NVIDIA driver"):
        nvidia.gpus("12.6")
