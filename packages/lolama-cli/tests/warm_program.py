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
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from patience import LIMIT, Patience
from program import Outcome, environment

_SERVER = """
import contextlib, fcntl, gc, importlib.metadata, json, os, pkgutil, signal, socket, sys, termios
import jinja2.sandbox, psutil, tokenizers, torch, torch.utils._device
import lolama, lolama_cli.app, lolama_core, lolama_hub, lolama_quant, lolama_serve, lolama_vision
from lolama_cli.__main__ import main
from lolama_cli.errors import Settings
from lolama_core.protocols.errors import UsageError

packages = (lolama, lolama_cli, lolama_core, lolama_hub, lolama_quant, lolama_serve, lolama_vision)
for package in packages:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not any(part in module.name for part in ("__main__", "testing", "triton.kernels")):
            importlib.import_module(module.name)
with contextlib.suppress(UsageError):  # typer imports more once it parses
    lolama_cli.app.run(["generate", "--top-p", "2", "z"], Settings())
# What takes half the time of a short run, and comes to the same in each.
command, installed = lolama_cli.app.root_command(), importlib.metadata.entry_points()
made = [*command.commands.values()]
lolama_cli.app.root_command = lambda: command
lolama_core.plugins.entry_points = installed.select
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
channel, running = socket.socket(fileno=os.dup(0)), set()
while True:
    line, streams, _, _ = socket.recv_fds(channel, 65536, 3)
    while line and not line.endswith(b"\\n"):
        line += channel.recv(65536)
    if not line:
        break
    order = json.loads(line)
    if "wait" in order:
        child = order["wait"]
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(int(sys.argv[1]))
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        running.remove(child)
        channel.sendall(b"%d\\n" % os.waitstatus_to_exitcode(status))
        continue
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        channel.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        if order["leads"]:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        sys.stdin = open(0, "r", closefd=False)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
        os.chdir(order["folder"])
        os.environ.update(order["env"])
        sys.argv = ["lolama", *order["arguments"]]
        exec(order["before"])
        main()
    for stream in streams:
        os.close(stream)
    running.add(child)
    channel.sendall(b"%d\\n" % child)
for child in running:  # left by a test that failed
    os.kill(child, signal.SIGKILL)
"""


class Run:
    """A run that goes on.

    Attributes:
        pid: Its process.
        stdout: What it writes there, if that goes into a pipe; likewise ``stderr``.
    """

    def __init__(self, host: WarmProgram, pid: int, stdout: int, stderr: int) -> None:
        self._host = host
        self._code: int | None = None
        self.pid = pid
        self.stdout = open(stdout, "rb", buffering=0)  # noqa: SIM115 # `communicate` closes it
        self.stderr = open(stderr, "rb", buffering=0)  # noqa: SIM115

    def communicate(self, timeout: float = LIMIT) -> tuple[bytes, bytes]:
        """What it goes on to write to standard output and standard error, until it ends."""
        patience = Patience(timeout)
        written = {self.stdout: b"", self.stderr: b""}
        reading = [*written]
        while reading:
            patience.check(written)
            ready, _, _ = select.select(reading, [], [], 1)
            for stream in ready:
                piece = os.read(stream.fileno(), 65536)
                written[stream] += piece
                if not piece:
                    reading.remove(stream)
                    stream.close()
        self.wait()
        return written[self.stdout], written[self.stderr]

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        if self._code is None:
            self._code = self._host.wait(self.pid)
        return self._code

    @property
    def returncode(self) -> int:
        """The same, as subprocess calls it."""
        return self.wait()


class WarmProgram:
    """Runs command lines of the program.

    Args:
        folder: For what is piped in and out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-c", _SERVER, str(int(LIMIT))]
        self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=environment())
        theirs.close()
        self._answers = self._channel.makefile("rb", buffering=0)

    def run(
        self,
        *arguments: str | bytes | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        before: str = "",
    ) -> Outcome:
        """Run ``lolama arguments...`` in ``folder``; a run that hangs is killed.

        Python code in ``before`` goes before it, in its process.
        """
        source, out, err = (self._folder / name for name in ("in", "out", "err"))
        source.write_bytes(stdin)
        with source.open("rb") as reads, out.open("wb") as writes, err.open("wb") as tells:
            streams = (reads.fileno(), writes.fileno(), tells.fileno())
            pid = self.begin(streams, arguments, env, folder=folder, before=before)
        return Outcome(self.wait(pid), out.read_bytes(), err.read_text("utf-8"))

    def on_terminal(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
    ) -> Outcome:
        """Run with standard output on a terminal; ``out`` is what it was sent (each line break as CR LF)."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        err = self._folder / "err"
        with open(os.devnull, "rb") as nothing, err.open("wb") as tells:
            pid = self.begin((nothing.fileno(), theirs, tells.fileno()), arguments, env)
        os.close(theirs)
        sent = b""
        # The terminal holds little, so it is read while the run goes on.
        with contextlib.suppress(OSError):  # how a terminal says that nobody holds the other end
            while piece := os.read(ours, 65536):
                sent += piece
        os.close(ours)
        return Outcome(self.wait(pid), sent, err.read_text("utf-8"))

    def start(
        self,
        *arguments: str | bytes | Path,
        stdin: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        """Begin to run ``lolama arguments...`` on pipes, with ``stdin`` as its standard input."""
        stdout, stderr = os.pipe(), os.pipe()
        with open(os.devnull, "rb") as nothing:
            streams = (nothing.fileno() if stdin is None else stdin, stdout[1], stderr[1])
            pid = self.begin(streams, arguments, env)
        os.close(stdout[1])
        os.close(stderr[1])
        return Run(self, pid, stdout[0], stderr[0])

    def begin(
        self,
        streams: Sequence[int],
        arguments: Sequence[str | bytes | Path],
        env: Mapping[str, str] | None,
        *,
        folder: Path | None = None,
        before: str = "",
        leads: bool = False,
    ) -> int:
        """Begin a run on these three descriptors; its process. One that ``leads`` owns its terminal."""
        order = {
            "arguments": [os.fsdecode(argument) for argument in arguments],
            "env": dict(env or {}),
            "folder": str(folder or Path.cwd()),
            "before": before,
            "leads": leads,
        }
        return self._answer(order, streams)

    def wait(self, pid: int) -> int:
        """The exit code of a run, once it has ended."""
        return self._answer({"wait": pid})

    def _answer(self, order: dict[str, Any], streams: Sequence[int] = ()) -> int:
        line = json.dumps(order).encode() + b"\n"
        sent = socket.send_fds(self._channel, [line], streams)
        self._channel.sendall(line[sent:])
        answer = self._answers.readline()
        assert answer, "the program's host died"
        return int(answer)

    def stop(self) -> None:
        """End the host, and every run that still goes on."""
        self._answers.close()
        self._channel.close()
        self._process.wait(LIMIT)


_FOLDER = tempfile.TemporaryDirectory(prefix="lolama-warm-")  # gone when the tests end


@cache
def shared() -> WarmProgram:
    """The one that all tests of this process use, and that ends with it."""
    program = WarmProgram(Path(_FOLDER.name))
    atexit.register(program.stop)
    return program


def run(
    *arguments: str | bytes | Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    before: str = "",
) -> Outcome:
    """`program.run` in little time, for tests that look at anything but the start."""
    return shared().run(*arguments, stdin=stdin, env=env, folder=folder, before=before)


def on_terminal(
    *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
) -> Outcome:
    """`program.on_terminal` in little time."""
    return shared().on_terminal(*arguments, env=env, columns=columns)


def start(
    *arguments: str | bytes | Path, stdin: int | None = None, env: Mapping[str, str] | None = None
) -> Run:
    """Begin a run that a test looks at, and sends signals to, while it goes on."""
    return shared().start(*arguments, stdin=stdin, env=env)
