from __future__ import annotations

import os
import subprocess
import sys

from program import environment

# Its first line on standard error: processor seconds until torch was there.
PROGRAM = """
import runpy, sys, time
import torch
print(time.process_time(), file=sys.stderr, flush=True)
runpy.run_module("lolama_cli", run_name="__main__", alter_sys=True)
"""
FIRST_TOKEN = ("generate", "-m", "demo", "--max-tokens", "1", "Once upon a time")


def cost() -> float:
    """Processor seconds of a first token beyond importing torch, both of one run: processors change their
    speed, and wall time would count other programs as well.
    """
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *FIRST_TOKEN],
        capture_output=True,
        text=True,
        env=environment(),
    )
    after = os.times()
    assert done.returncode == 0 and done.stdout, done.stderr
    whole = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return whole - float(done.stderr.splitlines()[0])


def test_the_first_token_costs_little_beside_torch() -> None:
    """At most 0.5 s, the best of five."""
    assert min(cost() for _ in range(5)) <= 0.5
