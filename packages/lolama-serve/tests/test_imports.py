"""What an import costs, each time in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "starlette", "uvicorn", "anyio", "msgspec", "prometheus_client"}


def test_the_package_imports_neither_torch_nor_the_libraries_of_the_server() -> None:
    """The package `lolama` imports it in each command, also in those that serve nothing."""
    code = "import sys, lolama_serve; dir(lolama_serve); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {*done.stdout.split()}
    assert "lolama_serve" in loaded
    assert loaded & HEAVY == set()
