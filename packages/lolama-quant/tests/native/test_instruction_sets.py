"""native/*.h beside the definition: on processors that are not at hand, emulated, and under sanitizers.

ARM's is compiled for ARM and run by QEMU; AVX-512's is compiled for any processor, its intrinsics replaced by
SIMDe's plain C. Debian and Ubuntu have what that needs:
``apt-get install gcc-aarch64-linux-gnu qemu-user libsimde-dev``.

``LOLAMA_FUZZ_CASES`` sets the number of shapes of grouped products that sanitizers look at.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from lolama_quant.cpu.library import LIBRARY, native_library

HERE = Path(__file__).parent
SOURCES = LIBRARY.parent
CROSS, QEMU = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
HOST = shutil.which("cc")
SIMDE = Path("/usr/include/simde").is_dir()
CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "100"))


def check(folder: Path, compiler: str, options: list[str], run: list[str], sets: list[str]) -> None:
    """``sets``: a letter and the number of the set.

    i is for int8 products, g for those of grouped weights, f for those of floats, a for attention, and w for
    attention over int8. g1:50 are 50 products.
    """
    program = folder / "check"
    include = f"-I{SOURCES}"
    command = [compiler, "-std=c11", "-O2", *options, include, str(HERE / "check.c")]
    subprocess.run([*command, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([*run, str(program), *sets], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{one}: 0 failures" for one in sets]


@pytest.mark.skipif(HOST is None, reason="there is no C compiler")
def test_the_portable_one(tmp_path: Path) -> None:
    assert HOST is not None
    check(tmp_path, HOST, [], [], ["i0", "g0", "f0", "a0", "w0"])


@pytest.mark.skipif(not (CROSS and QEMU), reason="needs gcc for ARM and QEMU")
def test_neon(tmp_path: Path) -> None:
    assert CROSS is not None and QEMU is not None
    check(
        tmp_path,
        CROSS,
        ["-static"],
        [QEMU, "-cpu", "max"],
        ["i0", "i3", "i4", "g3", "g4", "f0", "f3", "a3", "w0"],
    )


@pytest.mark.skipif(
    not (HOST and SIMDE and platform.machine() == "x86_64"), reason="needs SIMDe on x86-64"
)
def test_avx512_with_vnni(tmp_path: Path) -> None:
    assert HOST is not None
    # Without their targets, or the compiler would use the instructions that are to be emulated. Optimizing
    # would take a minute, and saves two seconds.
    options = ["-O0", "-w", "-Dtarget(x)=unused", f"-I{HERE / 'emulated'}"]
    sets = "i0 i1 i2 g1 g2 f0 f1 f2 a1 a2 w1 w2".split()
    check(tmp_path, HOST, options, [], sets)


@pytest.mark.skipif(HOST is None, reason="there is no C compiler")
def test_grouped_products_under_sanitizers(tmp_path: Path) -> None:
    """Buffers end where their numbers do: nothing is read beyond, and nothing is undefined."""
    assert HOST is not None
    library = native_library()
    best = 0 if isinstance(library, str) else library.int8_instruction_set
    options = ["-O1", "-g", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    check(tmp_path, HOST, options, [], [f"g{one}:{CASES}" for one in sorted({0, best})])
