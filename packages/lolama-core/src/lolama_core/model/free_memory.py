"""How much memory a process can still take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on ``device``, as far as the system tells; 0 if it does not.

    On Linux this is the memory that the system would free for the process, within the limits of a container
    (cgroup v2) and of the process (``ulimit -v``). A limit that cannot be read does not count.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or sys.platform != "linux":
        return 0
    return max(0, min(_limits(), default=0))


def _limits() -> Iterator[int]:
    """Bytes that the system, the container and the limit of the process leave, each if it can be read."""
    import resource

    described: list[str] = []
    try:
        described = (_PROC / "meminfo").read_text("ascii").split()
        yield 1024 * _kilobytes(described, "MemAvailable")
    except (OSError, ValueError):
        pass
    try:
        most = (_CGROUP / "memory.max").read_text("ascii").strip()
        if most != "max":
            kept = (_CGROUP / "memory.stat").read_text("ascii").split()
            # Copies of files in memory that were not read lately: the system drops them for others.
            idle = int(kept[kept.index("inactive_file") + 1])
            yield int(most) - int((_CGROUP / "memory.current").read_text("ascii")) + idle
    except (OSError, ValueError):
        pass
    try:
        if (_PROC / "sys/vm/overcommit_memory").read_text("ascii").strip() == "2":
            # Such a system promises no more than it has.
            yield 1024 * (
                _kilobytes(described, "CommitLimit") - _kilobytes(described, "Committed_AS")
            )
    except (OSError, ValueError):
        pass
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        try:
            pages = int((_PROC / "self/statm").read_text("ascii").split()[0])
            yield space - pages * resource.getpagesize()
        except (OSError, ValueError):
            pass


def _kilobytes(described: list[str], name: str) -> int:
    """A number of ``/proc/meminfo``."""
    return int(described[described.index(f"{name}:") + 1])
