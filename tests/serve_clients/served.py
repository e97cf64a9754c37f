"""Starts ``lolama serve`` for a script that tries a client, and tells what came of it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

E = TypeVar("E", bound=Exception)


@contextmanager
def served(*options: str) -> Iterator[str]:
    """The address of a server that is ready; it has to end with 0."""
    command = [sys.executable, "-m", "lolama_cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    try:
        while not _ready(address):
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 0, f"the server ended with {code}"


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def run_all(checks: list[Callable[[], None]]) -> None:
    """Run each check, and name it."""
    for check in checks:
        check()
        print(f"  {(check.__doc__ or check.__name__).splitlines()[0]}", flush=True)


def idle(address: str) -> bool:
    """Whether nothing runs at the server within a few seconds."""
    for _ in range(100):
        with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        if "\nllamacpp:requests_processing 0.0\n" in text:
            return True
        time.sleep(0.05)
    return False


def raised(kind: type[E], call: Callable[[], object]) -> E:
    """The error of that kind that a call raises, as it must."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
