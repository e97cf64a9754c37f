"""The installed program, run in a fresh process each time, without the seconds that importing torch takes.

One process imports what the program needs and forks for every run. Before it asks a hub again it waits for
next to nothing; how long it should is in the tests of lolama_hub.download.retries.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from patience import LIMIT
from program import Outcome, environment

_SERVER = """
import contextlib, gc, importlib, json, os, pkgutil, signal, sys
import jinja2, psutil, torch
import lolama, lolama_cli.app, lolama_core, lolama_hub, lolama_quant, lolama_vision
from lolama_cli.__main__ import main
from lolama_cli.errors import Settings
from lolama_core.protocols.errors import UsageError

for package in (lolama, lolama_cli, lolama_core, lolama_hub, lolama_quant, lolama_vision):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not any(part in module.name for part in ("__main__", "testing", "triton.kernels")):
            importlib.import_module(module.name)
with contextlib.suppress(UsageError):  # typer imports more once it parses
    lolama_cli.app.run(["generate", "--top-p", "2", "z"], Settings())
# These read the environment as they are imported, so every run does that anew; what they need stays.
for name in [*sys.modules]:
    parent, _, child = name.rpartition(".")
    if (name + ".").startswith(("huggingface_hub.", "lolama_hub.download.")):
        del sys.modules[name]
        if parent in sys.modules:
            delattr(sys.modules[parent], child)
import lolama_hub.download.retries
lolama_hub.download.retries._FIRST_WAIT = 0.001
gc.freeze()  # a run that collected garbage would copy every page of what is here
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, (path, flags) in enumerate(order["streams"]):
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin = open(0, "r", closefd=False)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
        os.chdir(order["folder"])
        os.environ.update(order["env"])
        sys.argv = ["lolama", *order["arguments"]]
        main()
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(int(sys.argv[1]))
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class WarmProgram:
    """Runs command lines of the program.

    Args:
        folder: For what is piped in and out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(int(LIMIT))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )

    def run(
        self,
        *arguments: str | bytes | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Outcome:
        """Run ``lolama arguments...`` in ``folder``; a run that hangs is killed."""
        source, out, err = (self._folder / name for name in ("in", "out", "err"))
        source.write_bytes(stdin)
        self._start(arguments, env, folder, str(source), str(out))
        return Outcome(self._exit_code(), out.read_bytes(), err.read_text("utf-8"))

    def on_terminal(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
    ) -> Outcome:
        """Run with standard output on a terminal; ``out`` is what it was sent (each line break as CR LF)."""
        assert self._process.stdout
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._start(arguments, env, None, os.devnull, os.ttyname(theirs))
        sent, code = b"", None
        # The terminal holds little, so it is read while the run goes on, and then to its end.
        with contextlib.suppress(OSError):  # how a terminal says that nobody holds the other end
            while True:
                awaited: list[Any] = [ours] if code is not None else [ours, self._process.stdout]
                ready, _, _ = select.select(awaited, [], [])
                if ours in ready:
                    sent += os.read(ours, 65536)
                else:
                    code = self._exit_code()
                    os.close(theirs)
        os.close(ours)
        assert code is not None
        return Outcome(code, sent, (self._folder / "err").read_text("utf-8"))

    def _start(
        self,
        arguments: Sequence[str | bytes | Path],
        env: Mapping[str, str] | None,
        folder: Path | None,
        stdin: str,
        stdout: str,
    ) -> None:
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        order: dict[str, Any] = {
            "arguments": [os.fsdecode(argument) for argument in arguments],
            "env": dict(env or {}),
            "folder": str(folder or Path.cwd()),
            "streams": [
                (stdin, os.O_RDONLY),
                (stdout, writing | os.O_NOCTTY),
                (str(self._folder / "err"), writing),
            ],
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _exit_code(self) -> int:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        assert answer, "the program's host died"
        return int(answer)

    def stop(self) -> None:
        """End the host."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(LIMIT)


_FOLDER = tempfile.TemporaryDirectory(prefix="lolama-warm-")  # gone when the tests end


@cache
def shared() -> WarmProgram:
    """The one that all tests of this process use, and that ends with it."""
    program = WarmProgram(Path(_FOLDER.name))
    atexit.register(program.stop)
    return program


def run(
    *arguments: str | bytes | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Outcome:
    """`program.run` in little time, for tests that look at anything but the start."""
    return shared().run(*arguments, stdin=stdin, env=env)


def on_terminal(
    *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
) -> Outcome:
    """`program.on_terminal` in little time."""
    return shared().on_terminal(*arguments, env=env, columns=columns)
