"""Where a model runs, and in which precision."""

from __future__ import annotations

import re
from types import TracebackType
from typing import cast

import torch

from lolama_core.model.dtypes import suited_dtype
from lolama_core.model.free_memory import free_memory
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ResourceError, UsageError

_ONE_THREAD_BYTES = 32 << 20

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What other programs and files call them.
_DTYPES_ELSEWHERE = {
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp32", "f32", "float", "full"), "float32"),
}


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name, or the best one here: CUDA, then Apple MPS, then the CPU.

    Raises:
        UsageError: for a device that does not exist or is not usable here.
    """
    if name is None or (isinstance(name, str) and name == "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError, OverflowError):
        what = f"{name:.40}" if isinstance(name, str) else shown(name)
        raise UsageError("device", f"{what} is not a device", "use cpu, cuda or mps") from None
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise UsageError("device", f"{device} is not available here", "use cpu, or leave it out")
    return device


def choose_dtype(
    name: str | torch.dtype | None, device: torch.device, stored: torch.dtype
) -> torch.dtype:
    """The dtype of that name, or the best one for weights stored as ``stored`` on ``device``.

    See `suited_dtype`.

    Raises:
        UsageError: for a dtype that weights cannot have.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name is not None and not isinstance(name, str):
        reason = f"{shown(name)} is not a dtype of weights"
        raise UsageError("dtype", reason, "use " + ", ".join(DTYPES))
    if name is not None and name != "auto":
        if name not in DTYPES:
            meant = _DTYPES_ELSEWHERE.get(name)
            remedy = f"did you mean {meant}?" if meant else "use " + ", ".join(DTYPES)
            raise UsageError("dtype", f"{name:.40} is not a dtype of weights", remedy)
        return DTYPES[name]
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    best = suited_dtype(str(stored).removeprefix("torch."), device.type, native_bfloat16=native)
    return cast(torch.dtype, getattr(torch, best))


def activation_dtype(device: torch.device, weights: torch.dtype) -> torch.dtype:
    """Precision of the residual stream: at least float32 on a CPU, where it is faster, else the weights'."""
    return torch.promote_types(weights, torch.float32) if device.type == "cpu" else weights


def suit_threads(model: CausalLM) -> None:
    """Give torch a single thread if ``model`` is so small that a second one is no help on a CPU.

    Measured with the built-in model, two threads are no faster than one on an idle machine; on a busy one,
    each of thousands of tiny products waits for a thread that is not scheduled. The number of threads
    belongs to the whole process, so programs call this; the library never does.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if model.device.type == "cpu" and weights < _ONE_THREAD_BYTES:
        torch.set_num_threads(1)


class memory_errors:
    """Turns an allocation that failed inside the ``with`` block into one clear error.

    (A generator would take a microsecond of each decoding step.)

    Raises:
        ResourceError: with what was needed and what is free.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, RuntimeError | MemoryError):
            return
        text = str(error)
        cpu = re.search(r"you tried to allocate (\d+) bytes", text)
        gpu = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
        if not (cpu or gpu or isinstance(error, MemoryError)):
            return
        need = f"{int(cpu[1]) / 1e9:.1f} GB " if cpu else f"{gpu[1]} " if gpu else ""
        raise ResourceError(
            f"memory of {self._device}",
            f"{need}more needed, {free_memory(self._device) / 1e9:.1f} GB free",
            "use a smaller model, fewer tokens, or `quantize=True`",
        ) from None
