"""What a start takes: commands that need no model, a refusal, first tokens, beside ``import torch``.

    python -m benchmarks.start --json benchmarks/results/start.json
    python -m benchmarks.start --rounds 1

Every round starts each program once cold and once warm, in turn, so that whatever else the machine does meets
all of them. Cold means that the system was told to drop what it holds in memory of every file of Python's
library, the installed packages and lolama with its models (Linux alone; it takes no root). How much then came
from the disk is counted. The interpreter itself stays in memory, as do names of files, and what the disk or a
host of this machine keeps. Let nothing else run: what another process has mapped is not dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from benchmarks.page_cache import drop_from_memory

# Nothing here imports torch before the end: the peak of a process begins with the memory of its parent.

PACKAGES = (
    "lolama",
    "lolama_cli",
    "lolama_core",
    "lolama_vision",
    "lolama_quant",
    "lolama_hub",
    "lolama_serve",
)


@dataclass
class Start:
    """A program that is started again and again.

    Attributes:
        label: As the table calls it.
        arguments: The arguments of the interpreter.
        code: The exit code that it has to end with.
        torch: Whether it imports torch.
        warm, cold: Seconds of each round, from the start of the process to its end.
        read: Bytes that came from the disk in each cold one.
        peak: The most bytes that were ever resident, of all rounds.
    """

    label: str
    arguments: tuple[str, ...]
    code: int = 0
    torch: bool = False
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    peak: int = 0


def programs() -> list[Start]:
    """What is started; the first is what the others are compared with."""
    commands = [
        "--help",
        "info demo",
        "models",
        "doctor --json",
        "config show",
        "generate -m nosuch hello",
        "generate -m demo --max-tokens 1 x",
    ]
    found = [
        Start(f'python -c "import {name}"', ("-c", f"import {name}"))
        for name in ("torch", "lolama")
    ]
    for command in commands:
        code = 2 if "nosuch" in command else 0
        found.append(Start(f"lolama {command}", ("-m", "lolama_cli", *command.split()), code))
    return found


def through_a_server(address: str) -> Start:
    """A first token of a model that a running server has.

    Args:
        address: That of the server.
    """
    words = f"generate -m demo --server {address} --max-tokens 1 x".split()
    return Start("first token through a running server", ("-m", "lolama_cli", *words))


@contextmanager
def serving(env: Mapping[str, str]) -> Iterator[str]:
    """The address of a server of `demo`, which has answered once.

    Args:
        env: As for `measure`.
    """
    command = [sys.executable, "-m", "lolama_cli", "serve", "-m", "demo", "--port", "0"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        cwd=env["LOLAMA_HOME"],
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            start(through_a_server(address), env)
            yield address
        finally:
            process.terminate()


def start(program: Start, env: Mapping[str, str]) -> tuple[float, int, int]:
    """Run it to its end: seconds, bytes from the disk, and the most bytes that were resident.

    Raises:
        SystemExit: if it does not end with the code that it has to.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *program.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        cwd=env["LOLAMA_HOME"],
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != program.code:
        raise SystemExit(f"{program.label}: ended with {process.returncode}, not {program.code}")
    # A block is 512 bytes, whatever the disk has. macOS tells memory in bytes, everybody else in KiB.
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return seconds, used.ru_inblock * 512, memory


def imports_torch(program: Start, env: Mapping[str, str]) -> bool:
    """Whether a run of it imports torch, in the interpreter's own words."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", *program.arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        cwd=env["LOLAMA_HOME"],
    )
    return any(line.rpartition("|")[2].strip() == "torch" for line in told.stderr.splitlines())


def folders_of_a_start() -> set[str]:
    """Where Python's library is, the installed packages, and lolama with its models."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    for name in PACKAGES:  # which may be installed from elsewhere
        spec = find_spec(name)
        folders.update((spec.submodule_search_locations if spec else None) or ())
    return folders


def measure(found: Sequence[Start], rounds: int, env: Mapping[str, str]) -> None:
    """Start everything, cold where the system can be told to forget, and warm; note how it went.

    Args:
        found: Programs, which get their figures.
        rounds: How often each is started both ways.
        env: The environment; ``LOLAMA_HOME`` is a folder of theirs, and where they start.

    Raises:
        SystemExit: if a program ends otherwise than it has to, or reads nothing from the disk when cold.
    """
    for program in found:  # this also writes the bytecode of all that is imported
        program.torch = imports_torch(program, env)
    folders = folders_of_a_start() if hasattr(os, "posix_fadvise") else set()
    os.sync()  # what is still to be written cannot be dropped
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for program in found if folders else ():
            drop_from_memory(folders)
            seconds, read, _ = start(program, env)
            if not read:
                raise SystemExit(
                    f"{program.label}: nothing came from the disk; was anything dropped?"
                )
            program.cold.append(seconds)
            program.read.append(read)
        for program in found:
            start(program, env)
        for program in found:
            seconds, _, peak = start(program, env)
            program.warm.append(seconds)
            program.peak = max(program.peak, peak)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    found = programs()
    with tempfile.TemporaryDirectory() as folder:
        # Nothing of what whoever measures has downloaded or set, and no network.
        mine = {name: value for name, value in os.environ.items() if not name.startswith("LOLAMA_")}
        alone = {"LOLAMA_HOME": folder, "HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        env = {**mine, **alone, "LOLAMA_CONFIG": f"{folder}/config.toml"}
        measure(found, options.rounds, env)
        # After all others: what the server has mapped cannot be dropped.
        with serving(env) as address:
            asked = through_a_server(address)
            measure([asked], options.rounds, env)
            found.append(asked)
    from benchmarks.run import processor, versions
    from benchmarks.tables import start_table

    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "versions": {name: one for name, one in versions().items() if one != "not installed"},
        "starts": [asdict(program) for program in found],
    }
    print(start_table(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
