"""Makes the pictures of README.md and docs/chat.md: the program on a real terminal, driven by tmux.

    python tests/captures.py            (or some: python tests/captures.py readme chat)

Needs tmux, and lolama installed in the environment that runs this.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
COLUMNS, LINES = 80, 46
_SECONDS = 90.0

# Keys, and what stands on the screen once they have had their effect. Ctrl-C is C-c, as tmux calls it.
Step = tuple[str, str]
SHELL = r"\$ ?$"
ASKED = r"(^|\n)> ?$"
DESCRIBE = 'lolama generate -m demo-vision -i docs/pictures/4.png "Describe the picture."'
SCRIPTS: dict[str, list[Step]] = {
    "readme": [
        ("lolama chat -m demo --seed 1", ASKED),
        ("What is two plus three?", ASKED),
        ("Tell me a story about a dog.", ASKED),
        ("/exit", SHELL),
        (DESCRIBE, SHELL),
    ],
    "models": [("lolama models", SHELL), ("lolama info demo", SHELL)],
    "generate": [
        ('lolama -v generate -m demo --seed 3 "Once upon a time"', SHELL),
        ("lolama generate -m demo --top-p 2 Hello", SHELL),
        ("lolama generate -m tinylama Hello", SHELL),
    ],
    "chat": [
        ("lolama chat -m demo --seed 1", ASKED),
        ("What is two plus three?", ASKED),
        ("Tell me a story about a dog.", r"dog\.\n.*\w"),
        ("C-c", ASKED),
        ("/retry", ASKED),
        ("/hlep", ASKED),
        ("/clear", ASKED),
        ("/model demo-vision", ASKED),
        ("/image docs/pictures/4.png", ASKED),
        ("What is in the picture?", ASKED),
        ("Where is the blue triangle?", ASKED),
        ("/stats", ASKED),
        ("/exit", SHELL),
    ],
}

LEFT_OUT = {"models": ("granite3.3:2b", "text and pictures")}
"""What stands in the first of the lines that a picture leaves out, and in the next one that it shows."""


class Screen:
    """A terminal that tmux runs.

    Args:
        socket: The name of tmux's server.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def tmux(self, *arguments: str) -> str:
        """Run a command of tmux; what it prints."""
        command = ["tmux", "-L", self._socket, *arguments]
        return subprocess.run(command, check=True, text=True, capture_output=True).stdout

    def shows(self, *options: str) -> str:
        """What stands on the screen."""
        return self.tmux("capture-pane", "-p", *options).rstrip("\n")

    def play(self, keys: str, until: str) -> None:
        """Press keys, and wait until ``until`` is found in what is new and the screen rests.

        Raises:
            TimeoutError: if that does not come.
        """
        before = self.shows()
        if keys == "C-c":
            self.tmux("send-keys", "C-c")
        else:
            self.tmux("send-keys", "-l", keys)
            self.tmux("send-keys", "Enter")
        started, last = time.monotonic(), ""
        while time.monotonic() - started < _SECONDS:
            time.sleep(0.15 if until in (SHELL, ASKED) else 0.01)
            shown = self.shows()
            rests = shown == last or (keys != "C-c" and until not in (SHELL, ASKED))
            if shown != before and rests and re.search(until, shown[-400:]):
                return
            last = shown
        raise TimeoutError(f"{keys!r}: {until!r} did not come:\n{self.shows()}")


@contextmanager
def terminal() -> Iterator[Screen]:
    """A shell of its own, in the repository."""
    screen = Screen(f"lolama-{uuid.uuid4().hex[:8]}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        environment = {
            "HOME": home,
            "LOLAMA_HOME": f"{home}/lolama",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PS1": "$ ",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "HF_HUB_OFFLINE": "1",
            "LANG": "C.UTF-8",
        }
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        shell = f"env -i {settings} bash --norc --noprofile -i"
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        screen.tmux("new-session", "-d", *size, "-c", str(ROOT), shell)
        try:
            yield screen
        finally:
            screen.tmux("kill-server")


def draw(name: str, shown: str) -> None:
    """An SVG of the screen, and its text beside it."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    shown = shown.replace(str(ROOT), "~/lolama")
    console.print(Text.from_ansi(shown), no_wrap=True, crop=False)
    console.save_svg(str(IMAGES / f"terminal-{name}.svg"), title="lolama")


def shortened(name: str, shown: str) -> str:
    """The screen without the lines of `LEFT_OUT`."""
    lines = shown.split("\n")
    if name in LEFT_OUT:
        first, after = (
            next(place for place, line in enumerate(lines) if words in line)
            for words in LEFT_OUT[name]
        )
        lines[first : after - 1] = ["⋮"]
    return "\n".join(lines)


def main(names: Sequence[str]) -> None:
    """Play the scripts of these names, or all."""
    for name in names or SCRIPTS:
        with terminal() as screen:
            time.sleep(0.5)
            for keys, until in SCRIPTS[name]:
                screen.play(keys, until)
            draw(name, shortened(name, screen.shows("-e", "-S", "-")))
        print(IMAGES / f"terminal-{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
