"""Requests made at random from the OpenAPI document of ``lolama serve``: none may be answered with 500.

python -m tests.serve_clients.fuzz 1000      that many for each of its addresses, by schemathesis
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.serve_clients.served import served


def main() -> int:
    """Run schemathesis; its exit code."""
    program = shutil.which("st")
    assert program is not None, "install schemathesis"
    with served("-m", "demo", "--max-tokens", "3") as address:
        command = [program, "run", f"{address}/openapi.json", "--checks", "not_a_server_error"]
        command += ["--phases", "fuzzing", "--no-color", "-n", sys.argv[1]]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
