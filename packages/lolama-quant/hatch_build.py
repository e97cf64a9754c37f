"""Builds the native library into the wheel, with the system's C compiler.

The library uses no header of Python or torch, so one wheel serves every version of both on a platform.
Without a compiler, or with one that has no OpenMP, the wheel is pure Python: everything works, with torch's
own products, and ``lolama doctor`` says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("src/lolama_quant/native")


class NativeLibraryHook(BuildHookInterface[Any]):
    """Compiles ``native/*.c`` before the wheel is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; on success mark the wheel as one of this platform."""
        library = (
            Path(self.root) / NATIVE / ("lolama.dylib" if sys.platform == "darwin" else "lolama.so")
        )
        problem = compile_library(Path(self.root) / NATIVE, library)
        if problem:
            library.unlink(missing_ok=True)
            self.app.display_warning(f"lolama-quant is built without its native library: {problem}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = (
            f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )
        # Git ignores the library, and hatchling follows git.
        build_data["force_include"][str(library)] = f"lolama_quant/native/{library.name}"


def compile_library(sources: Path, library: Path) -> str:
    """Compile the C files of the folder ``sources`` into ``library``; what went wrong, or nothing.

    ``CC`` names the compiler. The sources choose the instruction set when they run, so no ``-march`` here.
    A library of the same files, flags and compiler stays, as where one checkout is installed into several
    environments; the file beside it that ends in ``.made`` tells of what it was made.
    """
    if os.environ.get("LOLAMA_NO_NATIVE"):
        return "LOLAMA_NO_NATIVE is set"
    command = os.environ.get("CC", "cc").split()
    if shutil.which(command[0]) is None:
        return f"there is no C compiler ({command[0]})"
    flags = (
        "-std=c11 -O3 -fno-math-errno -fno-trapping-math -shared -fPIC -fopenmp -fvisibility=hidden "
        "-Wall -Wextra -Werror=implicit"
    ).split()
    names = sorted(path.name for path in sources.glob("*.c"))
    command += [*flags, "-o", str(library), *names, "-lm"]
    made, of = library.with_suffix(".made"), _digest(command, sources)
    if library.exists() and made.exists() and made.read_text(encoding="utf-8") == of:
        return ""
    made.unlink(missing_ok=True)
    # In the folder, since its path would be part of the library.
    result = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    if result.returncode:
        return " ".join(result.stderr.split())[:300]
    made.write_text(of, encoding="utf-8")
    return ""


def _digest(command: list[str], sources: Path) -> str:
    """Of all that a library is made of: the compiler, how it is called, and the files."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True)
    digest = hashlib.sha256(repr((command, version.stdout)).encode())
    for path in sorted(sources.glob("*.[ch]")):
        digest.update(repr((path.name, path.read_bytes())).encode())
    return digest.hexdigest()
