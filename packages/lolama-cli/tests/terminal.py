"""The program on a terminal of its own, as a person sits before it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Mapping
from pathlib import Path

from patience import Patience
from warm_program import shared

READY = b"\x1b[?2004h"  # the editor begins to read
_ASKS_PLACE = b"\x1b[6n"
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]|\r")


class Terminal:
    """Starts ``lolama arguments...`` on a terminal of 80 columns, and Python code ``before`` it.

    Attributes:
        out: All that it was sent.
    """

    def __init__(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, before: str = ""
    ) -> None:
        self.out = b""
        self._seen = 0
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.pid = shared().begin([theirs] * 3, arguments, env, before=before, leads=True)
        os.close(theirs)

    @property
    def text(self) -> str:
        """What it was sent, without escape sequences."""
        return _ESCAPES.sub(b"", self.out).decode(errors="replace")

    def type(self, text: str) -> None:
        """Press keys; ``\\r`` is Enter."""
        os.write(self._fd, text.encode())

    def say(self, text: str) -> str:
        """Type a line, and wait for the next one; what was shown meanwhile."""
        self.type(f"{text}\r")
        return self.wait_for(READY)

    def ask(self, text: str) -> None:
        """Type a line, and wait until the editor has let go: a Ctrl-C before that would be a key to it."""
        self.type(f"{text}\r")
        patience = Patience()
        while self.is_raw() and not self.has(READY):
            patience.check(self.out[self._seen :])
            self.read(0.001)

    def wait_for(self, what: bytes) -> str:
        """Wait until this is sent after what was waited for before; what came meanwhile, without escapes."""
        patience = Patience()
        while (at := self.out.find(what, self._seen)) < 0:
            patience.check(self.out[self._seen :])
            assert self.read(0.05), (what, self.out[self._seen :])
        shown = self.out[self._seen : at]
        self._seen = at + len(what)
        return _ESCAPES.sub(b"", shown).decode(errors="replace")

    def wait(self, seconds: float) -> None:
        """Take what comes in this time."""
        patience = Patience(seconds)
        while (left := patience.left()) > 0 and self.read(left):
            pass

    def read(self, seconds: float) -> bool:
        """Take the next that comes within this time; False once the program is gone."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return True
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # how a terminal says that nobody holds the other end any more
            return False
        self.out += piece
        for _ in range(piece.count(_ASKS_PLACE)):
            os.write(self._fd, b"\x1b[1;1R")
        return bool(piece)

    def has(self, what: bytes) -> bool:
        """Whether this was sent after what was waited for before."""
        return what in self.out[self._seen :]

    def is_raw(self) -> bool:
        """Whether keys reach the program one by one, without an echo."""
        return not termios.tcgetattr(self._fd)[3] & termios.ICANON

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C, and wait until the process has the signal: a second one before that would be lost."""
        self.type("\x03")
        status = Path(f"/proc/{self.pid}/status")
        patience = Patience()
        while status.exists() and _is_pending(status.read_text(), signal.SIGINT):
            patience.check()
            self.read(0.005)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        patience = Patience()
        while self.read(0.02):
            patience.check(self.out)
        os.close(self._fd)
        return shared().wait(self.pid)


def _is_pending(status: str, number: int) -> bool:
    """Whether /proc/PID/status tells of a signal that the process has not taken yet."""
    pending = (
        int(mask, 16) for mask in re.findall(r"^(?:Sig|Shd)Pnd:\t(\w+)$", status, re.MULTILINE)
    )
    return any(mask >> (number - 1) & 1 for mask in pending)
