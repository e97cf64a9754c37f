"""A limit on address space (``ulimit -v``) that torch does not fit into: told before torch is imported.

Where its libraries, and those that come with them, get no memory, some raise, some print and some abort.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from lolama_core.protocols.errors import ResourceError

# Beside its own libraries: those of others, their threads, and what Python makes of its modules.
_REST = 128 * 2**20


def watch() -> None:
    """Have the import of torch refused if it will not fit; nothing to do where there is no limit."""
    if is_limited() and "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


def is_limited() -> bool:
    """Whether there is a limit that is held. Linux alone counts a process's address space so."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.platform == "linux" and limit != resource.RLIM_INFINITY


class _Finder:
    # No importlib.abc.MetaPathFinder: importing that takes longer than the rest of this module.

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        check(Path(self.path).parent / "lib")
        super().exec_module(module)


def check(libraries: Path) -> None:
    """Refuse a limit that leaves too little for torch.

    Args:
        libraries: The directory of torch's shared libraries, all of which are mapped.

    Raises:
        ResourceError: with what is left and what it takes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    left = limit - pages * resource.getpagesize()
    needed = sum(file.stat().st_size for file in libraries.glob("*.so*")) + _REST
    if left < needed:
        reason = (
            f"takes {needed / 2**20:,.0f} MiB of address space, and {left / 2**20:,.0f} are left"
        )
        raise ResourceError("torch", reason, "raise the limit (`ulimit -v`)")
