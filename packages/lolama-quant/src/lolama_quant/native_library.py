"""The native operators of this package: one small C library, found, loaded and described here."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LIBRARY = (
    Path(__file__).parent / "native" / ("lolama.dylib" if sys.platform == "darwin" else "lolama.so")
)
INSTRUCTION_SETS = ("portable", "AVX2", "AVX-512", "NEON")


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library.

    Attributes:
        linear: ``lolama_linear`` of native/linear.c.
        instruction_set: Index into `INSTRUCTION_SETS` of the best one this processor has.
    """

    linear: ctypes._NamedFuncPointer
    instruction_set: int


@cache
def native_library() -> NativeLibrary | str:
    """The library, or one line on why there is none."""
    if not LIBRARY.exists():
        return "not built: installing lolama-quant found no C compiler with OpenMP"
    # torch brings the OpenMP runtime. Loaded first, it is found under its name, so that both share one
    # pool of threads; two pools would fight over the cores.
    import torch  # noqa: F401

    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"cannot be loaded: {error}"
    linear = library.lolama_linear
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    linear.argtypes = [
        pointer,
        pointer,
        pointer,
        pointer,
        size,
        size,
        size,
        ctypes.c_int,
        ctypes.c_int,
    ]
    linear.restype = None
    return NativeLibrary(linear, library.lolama_best_isa())


def dtype_number(dtype: torch.dtype) -> int | None:
    """How native/linear.c calls a dtype of weights; None for one that it does not know."""
    import torch

    return {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}.get(dtype)
