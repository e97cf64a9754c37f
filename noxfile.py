"""Every check of this repository, by name; ``nox_sessions/`` says what each does.

    python3 noxfile.py                          the tests of every package, one environment each
    python3 noxfile.py -s quick                 a minute of tests in one environment, after each edit
    python3 noxfile.py -s promises              the times that are promised; nothing else may run
    python3 noxfile.py -s demo                  text from the built-in model, lolama-core alone
    python3 noxfile.py -s "test(lolama-core)" -- -k rope
    python3 noxfile.py -l                       all names

A Python ≥ 3.11 is all this needs: where nox is not at hand, the file makes ``.nox/_tool``, installs
``nox[uv]`` there and starts itself again. It works the same as ``nox``, ``pipx run nox`` or
``uvx --from 'nox[uv]' nox``.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one should read this, not a traceback
    sys.exit(f"lolama needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOL_REQUIREMENT = "nox[uv]>=2025.5.1"


def start_self() -> int:
    """Run this file under the nox in ``.nox/_tool``, made on first use. Returns the exit status."""
    tool = ROOT / ".nox" / "_tool"
    python = tool / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        # Not just that the file exists: an interrupted set-up, or a Python since removed, is done again.
        probe = subprocess.run([python, "-c", "import nox, uv"], stderr=subprocess.DEVNULL)
        ready = probe.returncode == 0
    except OSError:
        ready = False
    if not ready:
        print(f"setting up nox in {tool} (once)", file=sys.stderr)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(tool)],
            [
                str(python),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-q",
                TOOL_REQUIREMENT,
            ],
        ):
            status = subprocess.run(command).returncode
            if status:
                print(f"could not set up nox: {' '.join(command)} failed", file=sys.stderr)
                return status
    try:
        return subprocess.run([python, __file__, *sys.argv[1:]]).returncode
    except KeyboardInterrupt:
        return 130  # nox got the signal too and has said so


try:
    import nox
except ImportError:
    sys.exit(start_self())

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["test"]

# Without byte code every process compiles torch again, which doubles the time to import it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The program `nox` looks for modules beside itself; `python -m nox` and this file do so here.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    sys.argv[1:1] = ["--noxfile", __file__]
    nox.main()  # which imports this file, and exits: sessions are registered just once

# Each of them adds its sessions to nox. They import nox, so they come after it.
from nox_sessions import (  # noqa: E402
    distributions,
    linting,
    long_runs,
    published,
    serving,
    speed,
    unit_tests,
)

__all__ = ["distributions", "linting", "long_runs", "published", "serving", "speed", "unit_tests"]
