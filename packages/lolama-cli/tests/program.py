"""Runs the installed program as a user would: in a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patience import LIMIT

COMMAND = (sys.executable, "-m", "lolama_cli")
ENDLESS = ("--max-tokens", "190000", "z")
"""What to ask the model ``endless``."""

_HOME = tempfile.TemporaryDirectory(prefix="lolama-tests-")  # gone when the tests end
_ERROR_LINE = re.compile(r"error: [^:\n]+: [^\n]+\n")


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    code: int
    out: bytes
    err: str

    def refused(self, code: int, *words: str) -> None:
        """Check the contract of every failure: one line, these words in it, no payload, this code."""
        assert self.code == code, self.err
        assert self.out == b""
        assert _ERROR_LINE.fullmatch(self.err), self.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", self.err)
        for word in words:
            assert word in self.err, self.err


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a run: one thread, so that tests in parallel do not wait for each other."""
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "HF_TOKEN", "HF_HUB_CACHE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in unset and not name.startswith("LOLAMA_")
    }
    # No test reaches the network, or looks into what whoever runs it has downloaded.
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "LOLAMA_HOME": _HOME.name}
    alone["LOLAMA_CONFIG"] = "/nonexistent/config.toml"
    terminal = {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
    return {**kept, **alone, **terminal, **(changes or {})}


def run(
    *arguments: str | bytes | Path,
    stdin: bytes | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    python: tuple[str, ...] = (),
) -> Outcome:
    """Run ``lolama arguments...`` on pipes.

    Args:
        arguments: The arguments of the command line; bytes need not be UTF-8.
        stdin: What to pipe in; else a file descriptor.
        env: Changes to the environment.
        python: Options of the interpreter.
    """
    command = (COMMAND[0], *python, *COMMAND[1:], *arguments)
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    process = subprocess.run(
        command,
        capture_output=True,
        env=environment(env),
        timeout=LIMIT,
        **given,
    )
    err = process.stderr.decode("utf-8", errors="surrogateescape")
    return Outcome(process.returncode, process.stdout, err)


def shell(script: str, *arguments: str | Path) -> Outcome:
    """Run a line of bash in which ``lolama`` is the program and ``$1``, ``$2``, ... are ``arguments``."""
    define = f'lolama() {{ "{COMMAND[0]}" -m lolama_cli "$@"; }}\n'
    process = subprocess.run(
        ["bash", "-c", define + script, "bash", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=LIMIT,
    )
    return Outcome(process.returncode, process.stdout, process.stderr.decode())


def on_terminal(
    *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
) -> Outcome:
    """Run with standard output on a terminal; ``out`` is what it was sent (each line break as CR LF)."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        (*COMMAND, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment(env),
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how a terminal says that nobody holds the other end any more
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    assert process.stderr is not None
    with process.stderr:
        err = process.stderr.read().decode()
    code = process.wait(LIMIT)
    return Outcome(code, out, err)
