"""Whether Triton can compile kernels here."""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec


def has_triton() -> bool:
    """Whether kernels can be compiled here."""
    return _missing() is None


def describe_triton() -> str:
    """Whether kernels can be compiled here, and what is missing if they cannot."""
    return _missing() or "compiled by Triton"


@cache
def _missing() -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    # Triton compiles what launches a kernel with it.
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang")))):
        return "Triton finds no C compiler"
    return None
