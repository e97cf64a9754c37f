"""Torch's inference mode, which ends with the work that it was set for, wherever Ctrl-C comes.

Torch's own context managers are Python: where Ctrl-C comes as their block ends, a thread would stay as it is
within it. A model that somebody makes or changes later would then be one whose changes nobody sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def run_inference(device: torch.device, work: Callable[[], T]) -> T:
    """Call ``work`` as models are run to generate or to score, whatever is set for the process.

    Without gradients, and without autocast: the weights' dtype says how products are taken, in blocks and in
    kernels alike. (A model that is called itself obeys autocast, as whoever trains it needs.)

    Returns:
        What ``work`` returns.
    """
    if not torch.is_autocast_enabled(device.type):
        return _in_mode(True, work)
    try:
        with torch.autocast(device.type, enabled=False):
            return _in_mode(True, work)
    finally:
        if not torch.is_autocast_enabled(device.type):
            torch.set_autocast_enabled(device.type, True)


def ordinary(make: Callable[[], T]) -> T:
    """Call ``make``, whose tensors can be written to and trained anywhere, wherever it is called.

    Returns:
        What ``make`` returns.
    """
    return _in_mode(False, make)


def _in_mode(inference: bool, work: Callable[[], T]) -> T:
    if torch.is_inference_mode_enabled() == inference:
        return work()
    mode = torch.inference_mode(inference)
    try:
        with mode:
            return work()
    finally:
        if torch.is_inference_mode_enabled() == inference:  # its end was broken off
            mode.__exit__(None, None, None)
