"""The installed program, run in a fresh process each time, without the seconds that importing torch takes.

One process imports what the program needs and forks for every run. What is measured is then the run itself.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from program import Outcome, environment

_SERVER = """
import json, os, sys, time
import lolama_cli.app, lolama.wiring, lolama_core.loading, lolama_core.generator, lolama_core.checkpoint_io
import lolama_core.safetensors_file, lolama_core.chat_template, tokenizers, torch
import lolama_hub.bin_conversion, lolama_hub.sentencepiece_conversion
import lolama_vision.llava, lolama_vision.image_processor, lolama.vision, lolama_cli.pictures
from lolama_cli.__main__ import main
for line in sys.stdin:
    order = json.loads(line)
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        for number, (path, flags) in enumerate(order["streams"]):
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin = open(0, "r", closefd=False)
        os.chdir(order["folder"])
        os.environ.update(order["env"])
        sys.argv = ["lolama", *order["arguments"]]
        main()
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([code, seconds]), flush=True)
"""


class WarmProgram:
    """Runs command lines of the program.

    Args:
        folder: For what is piped in and out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )

    def run(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Outcome:
        """Run ``lolama arguments...`` in ``folder``; ``seconds`` leaves out what every start takes."""
        assert self._process.stdin and self._process.stdout
        paths = [self._folder / name for name in ("in", "out", "err")]
        paths[0].write_bytes(stdin)
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        order: dict[str, Any] = {
            "arguments": [str(argument) for argument in arguments],
            "env": dict(env or {}),
            "folder": str(folder or Path.cwd()),
            "streams": list(zip(map(str, paths), (os.O_RDONLY, writing, writing), strict=True)),
        }
        started = time.perf_counter()
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the program's host died after {time.perf_counter() - started:.1f} s"
        code, seconds = json.loads(answer)
        return Outcome(code, paths[1].read_bytes(), paths[2].read_text("utf-8"), seconds)

    def stop(self) -> None:
        """End the host."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


_FOLDER = tempfile.TemporaryDirectory(prefix="lolama-warm-")  # gone when the tests end


@cache
def shared() -> WarmProgram:
    """The one that all tests of this process use, and that ends with it."""
    program = WarmProgram(Path(_FOLDER.name))
    atexit.register(program.stop)
    return program


def run(
    *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Outcome:
    """`program.run` in little time, for tests that look at anything but the start."""
    return shared().run(*arguments, stdin=stdin, env=env)
