from __future__ import annotations

import os
import subprocess
import sys

from program import environment

FIRST_TOKEN = (
    "-m",
    "lolama_cli",
    "generate",
    "-m",
    "demo",
    "--max-tokens",
    "1",
    "Once upon a time",
)


def processor_seconds(*arguments: str) -> float:
    """What a run of the interpreter costs; wall time would count other programs as well."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment()
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def test_the_first_token_costs_little_beside_torch() -> None:
    """At most 0.5 s, the best of three each. Neither run takes the interpreter down."""
    torch_alone = "import os, torch; os._exit(0)"
    torch = min(processor_seconds("-c", torch_alone) for _ in range(3))
    assert min(processor_seconds(*FIRST_TOKEN) for _ in range(3)) - torch <= 0.5
