"""Kernels that start while the one before them still runs (CUDA's programmatic dependent launch).

Launching a kernel and letting one drain takes some microseconds, as long as a small kernel takes to run.
From Hopper on, the blocks of a kernel may be brought to the GPU before the kernel ahead of it has ended, and
wait for that on the GPU itself. Every kernel of a step waits before it touches memory.
"""

from __future__ import annotations

import os
from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_HOPPER = 9


@triton.jit  # type: ignore[untyped-decorator] # Triton has no types
def wait_for_inputs(OVERLAPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Wait for the end of the kernel before."""
    if OVERLAPS:
        gdc_wait()


@triton.jit  # type: ignore[untyped-decorator]
def let_next_begin(OVERLAPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Let the next kernel come as soon as all blocks of this one have said so.

    A kernel of many blocks says so when its work is nearly done: blocks of the next one would else settle
    wherever room is first, many on one processor and none on another.
    """
    if OVERLAPS:
        gdc_launch_dependents()


@cache
def can_overlap(device: torch.device) -> bool:
    """Whether kernels can be launched so on ``device``."""
    if device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    return torch.cuda.get_device_capability(device)[0] >= _HOPPER
