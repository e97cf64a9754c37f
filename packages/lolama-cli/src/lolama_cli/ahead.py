"""What takes the start of a run longest, begun before it is needed, in threads that hold nothing up.

Importing torch has two parts: the system maps and links its libraries, which needs no interpreter, and then
Python runs, which does. The first part goes on beside the small files of a model being read and checked. The
weights come from the disk while the second one does. Neither has an effect that a run could see: who imports
torch, or reads the weights, finds them there sooner, and whatever is wrong with them is found then.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from lolama_cli.address_space import is_limited

if TYPE_CHECKING:
    from lolama_core.protocols.types import ModelFiles


def load_libraries_ahead() -> None:
    """Have the system load torch's libraries, if torch is not imported yet. Linux alone was tried."""
    if "torch" in sys.modules or sys.platform != "linux" or is_limited():
        return
    found = find_spec("torch")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "lib"
        Thread(target=_load, args=(folder,), daemon=True).start()


def read_ahead(files: ModelFiles) -> None:
    """Have the system read the weights from the disk, if they are not much for its memory."""
    # macOS has no posix_fadvise, and a thread takes address space.
    if not hasattr(os, "posix_fadvise") or is_limited():
        return
    paths = {location.path for location in files.tensors.values()}
    Thread(target=_read, args=(sorted(paths),), daemon=True).start()


def _load(folder: Path) -> None:
    import ctypes

    # In the order and the way in which torch itself does: what its parts share comes first, for all to see.
    for name, mode in (
        ("libtorch_global_deps.so", ctypes.RTLD_GLOBAL),
        ("libtorch.so", ctypes.RTLD_LOCAL),
    ):
        with suppress(OSError):
            ctypes.CDLL(str(folder / name), mode)


def _read(paths: list[Path]) -> None:
    import psutil

    with suppress(OSError):
        # More than this would push out what was read first before the load has come to it.
        if sum(path.stat().st_size for path in paths) > psutil.virtual_memory().available // 2:
            return
        for path in paths:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
