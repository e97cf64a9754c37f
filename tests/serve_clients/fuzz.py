"""Requests made at random from the OpenAPI document of ``lolama serve``: none may be answered with 500.

python -m tests.serve_clients.fuzz 20000      at least that many calls, by schemathesis
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import count

from tests.serve_clients.served import served

_OF_EACH = "40"
"""Requests to each address in a round. Hypothesis takes a second for one after some hundred."""


def main() -> int:
    """Run schemathesis in rounds until it has made as many calls; its exit code, and 1 for none."""
    program = shutil.which("st")
    assert program is not None, "install schemathesis"
    calls, wanted = 0, int(sys.argv[1])
    with served("-m", "demo", "--max-tokens", "3") as address:
        for seed in count(1):
            command = [program, "run", f"{address}/openapi.json", "--checks", "not_a_server_error"]
            command += ["--phases", "fuzzing", "--workers", "2", "--no-color", "-n", _OF_EACH]
            command += ["--seed", str(seed), "--generation-database", "none"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            made = re.search(r"^ *(\d+) generated", done.stdout, re.MULTILINE)
            if done.returncode or made is None:
                print(done.stdout)
                return done.returncode or 1
            calls += int(made[1])
            print(f"{calls:,} calls in {seed} rounds, none answered with 500 or more", flush=True)
            if calls >= wanted:
                return 0
    raise AssertionError("there are always more rounds")


if __name__ == "__main__":
    sys.exit(main())
