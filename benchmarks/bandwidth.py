"""The probe: how fast this machine reads memory at this moment."""

from __future__ import annotations

import time

_PROBE_BYTES = 1 << 30  # far beyond any processor's cache
_REPEATS = 3


def read_bandwidth(threads: int) -> float:
    """Bytes a second: a sum over 1 GiB of int64, the best of three.

    Sums of int64 and of float32, and the largest element, all run equally fast, which says that memory
    and not arithmetic is what they wait for. A copy is slower: each line it writes is read first.
    """
    import torch

    torch.set_num_threads(threads)
    data = torch.zeros(_PROBE_BYTES // 8, dtype=torch.int64)
    best = float("inf")
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begin)
    return _PROBE_BYTES / best
