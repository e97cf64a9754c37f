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
    # Triton compiles what launches a kernel with the first of these.
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "Triton finds no C compiler"
    if not os.environ.get("CC") and not os.path.isabs(compiler):
        # The current folder may be a model's, and nothing in that is run.
        return f"Triton would run {compiler} of the current folder: take it out of PATH, or set CC"
    return None
