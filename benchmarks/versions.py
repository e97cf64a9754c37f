"""This version beside another one, in one run: whether both say the same, and how fast each is.

    python -m benchmarks.versions --other ../before --python ../before/.venv/bin/python

The other version is a checkout, and an interpreter that has its packages. Both generate with `demo`, and all
ids, texts, log-probabilities and logits have to be the same, bit by bit. Then both are timed in pairs, one
right after the other, and the order changes with each pair. A row tells how many times as fast as the other
version this one is: the median of the pairs, and the interval that holds it with a probability of at least
95 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks.contestants import EIGHT_BITS, SIXTEEN_BITS, Contestant, PeerProcess
from benchmarks.make_model import model_path
from benchmarks.measure import BATCH_CONTEXT, Plan
from benchmarks.run import processor
from benchmarks.shapes import SHAPES, STEPS, THREADS
from benchmarks.summary import seconds
from benchmarks.tables import markdown

Jobs: TypeAlias = dict[str, tuple[Callable[[], float], Callable[[], float]]]
"""Name → what gives the seconds of this version, and of the other one."""

HERE = Path(__file__).resolve().parents[1]
ROWS = ("lolama bf16 (core + quant)", "lolama bf16 (core alone)", "lolama int8")
TEXT_SCRIPT = """
import sys, time, torch
from lolama_core import TextGenerator, load
torch.set_num_threads(1)
generator = TextGenerator(*load("demo", device="cpu"))
for line in sys.stdin:
    count, times = (int(number) for number in line.split())
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        generator.generate("Once upon a time", temperature=0, max_new_tokens=count, ignore_eos=True)
        taken.append(time.perf_counter() - begin)
    print(min(taken), flush=True)
"""
STARTS = {
    "start: --version": ["--version"],
    "start: models": ["models"],
    "start: generate, one token": ["generate", "-m", "demo", "-n", "1", "Once"],
}


def environment(**more: str) -> dict[str, str]:
    """The environment of a version's process, with ``more``.

    Python may write byte code there. Otherwise a version that was never run would be compiled at each start.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **more}


@dataclass(frozen=True)
class Version:
    """A checkout, and the interpreter that has its packages."""

    python: str
    checkout: Path

    def run(self, *arguments: str) -> str:
        """Run its interpreter in its folder, and return what that prints.

        Raises:
            CalledProcessError: if the interpreter fails.
        """
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.checkout,
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        return done.stdout


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Order statistics between which the median lies with a probability of at least 95 %.

    Fewer than six ratios have no such interval. Then it is from the least to the greatest.
    """
    ordered, n = sorted(ratios), len(ratios)
    outside, below = 0.0, 0
    while below < n // 2 and 2 * (outside + comb(n, below) / 2**n) <= 0.05:
        outside += comb(n, below) / 2**n
        below += 1
    place = max(below - 1, 0)
    return ordered[place], ordered[n - 1 - place]


def differences(this: Version, other: Version) -> tuple[int, list[str]]:
    """How many results were compared, and the names of those that are not the same."""
    script = str(HERE / "benchmarks" / "same_texts.py")
    mine, theirs = (json.loads(version.run(script)) for version in (this, other))
    assert mine.keys() == theirs.keys()
    return len(mine), [name for name in mine if mine[name] != theirs[name]]


def pairs(jobs: Jobs, count: int, only: Sequence[str] = ()) -> list[list[str]]:
    """Time the jobs in pairs. A row for each has its name, the median of its ratios, and their interval.

    Args:
        jobs: What to time. Each runs once untimed.
        count: How many pairs.
        only: Parts of names. If there are any, only jobs whose names contain one of them are timed.
    """
    jobs = {
        name: job for name, job in jobs.items() if not only or any(part in name for part in only)
    }
    for this, other in jobs.values():
        this(), other()
    ratios: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(count):
        print(f"pair {number + 1} of {count}", file=sys.stderr, flush=True)
        for name, (this, other) in jobs.items():
            if number % 2:
                mine, theirs = this(), other()
            else:
                theirs, mine = other(), this()
            ratios[name].append(theirs / mine)
    rows = []
    for name, found in ratios.items():
        low, high = interval(found)
        rows.append([name, f"{median(found):.3f}", f"{low:.3f} to {high:.3f}"])
    return rows


def start_jobs(versions: tuple[Version, Version]) -> Jobs:
    """The seconds of a command from the start of its process to its end."""

    def timed(version: Version, arguments: list[str]) -> float:
        begin = time.perf_counter()
        version.run("-m", "lolama_cli", *arguments)
        return time.perf_counter() - begin

    this, other = versions
    return {
        name: (partial(timed, this, arguments), partial(timed, other, arguments))
        for name, arguments in STARTS.items()
    }


def text_jobs(versions: tuple[Version, Version]) -> tuple[Jobs, list[subprocess.Popen[str]]]:
    """Whole texts of `demo` on one thread, and the two processes that generate them."""
    processes = [
        subprocess.Popen(
            [v.python, "-c", TEXT_SCRIPT],
            cwd=v.checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(OMP_NUM_THREADS="1"),
        )
        for v in versions
    ]

    def ask(process: subprocess.Popen[str], tokens: int, times: int) -> float:
        assert process.stdin is not None and process.stdout is not None
        print(tokens, times, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    this, other = processes
    jobs: Jobs = {
        f"demo, a text of {tokens} tokens": (
            partial(ask, this, tokens, times),
            partial(ask, other, tokens, times),
        )
        for tokens, times in ((4, 20), (200, 3))
    }
    return jobs, processes


def generator_jobs(
    versions: tuple[Version, Version], layout: str, shape: str, path: Path, plan: Plan
) -> tuple[Jobs, list[subprocess.Popen[str]]]:
    """Prompts and tokens as `TextGenerator` and `BatchGenerator` run them, and the two processes."""
    threads = THREADS.get(shape) or os.cpu_count() or 1
    script = str(HERE / "benchmarks" / "text_peer.py")
    this, other = (
        subprocess.Popen(
            [v.python, script, str(path), str(threads)],
            cwd=v.checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(OMP_NUM_THREADS=str(threads)),
        )
        for v in versions
    )

    def ask(process: subprocess.Popen[str], place: int, *job: int) -> float:
        assert process.stdin is not None and process.stdout is not None
        print(*job, file=process.stdin, flush=True)
        return float(process.stdout.readline().split()[place])

    # A job, and which of its two numbers.
    asked = {f"prompt {n}": (0, 1, n, 1) for n in plan.prompts}
    asked |= {f"decode {n}": (1, 1, n, plan.steps) for n in plan.contexts}
    asked |= {f"{n} rows": (1, n, BATCH_CONTEXT, plan.steps) for n in plan.rows}
    jobs: Jobs = {
        f"{shape}, texts {layout}: {name}": (partial(ask, this, *job), partial(ask, other, *job))
        for name, job in asked.items()
    }
    return jobs, [this, other]


def peer_jobs(
    versions: tuple[Version, Version], contestant: Contestant, shape: str, path: Path, plan: Plan
) -> tuple[Jobs, list[PeerProcess]]:
    """The rows of ``benchmarks.run`` for one contestant, and the two processes that do them."""
    threads = THREADS.get(shape) or os.cpu_count() or 1
    peers = [
        PeerProcess(replace(contestant, python=v.python, checkout=v.checkout), path, threads)
        for v in versions
    ]

    def ask(peer: PeerProcess, kind: str, job: dict[str, Any]) -> float:
        return seconds(kind, peer.ask(job))

    this, other = peers
    jobs: Jobs = {
        f"{shape}, {contestant.label}: {kind} {size}": (
            partial(ask, this, kind, job),
            partial(ask, other, kind, job),
        )
        for kind, size, job in plan.jobs(0)
    }
    return jobs, peers


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versions",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--other", type=Path, required=True, help="the checkout of the other version")
    add("--python", required=True, help="an interpreter with the packages of the other version")
    add("--pairs", type=int, default=20, help="default: 20")
    add("--only", action="append", default=[], help="rows whose name contains this; repeatable")
    add("--shape", choices=SHAPES, default="160m", help="default: 160m, as benchmarks.run --short")
    add("--models", type=Path, help="where the random models are kept (a temporary folder)")
    return parser.parse_args()


def main() -> None:
    """Compare, measure, print."""
    arguments = parse()
    versions = Version(sys.executable, HERE), Version(arguments.python, arguments.other.resolve())
    count, different = differences(*versions)
    print(f"{count} results compared bit by bit, {len(different)} differ", *different, sep="\n  ")
    root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    head = ["", "times as fast", "95 % interval of the median"]
    rows = pairs(start_jobs(versions), arguments.pairs, arguments.only)
    jobs, texts = text_jobs(versions)
    rows += pairs(jobs, arguments.pairs, arguments.only)
    for process in texts:
        process.communicate()
    plan = Plan((128, 512), (128, 1024), (4, 16), STEPS[arguments.shape], 1, 1, 1)
    for layout in ("hf-bf16", "int8-kept"):
        path = model_path(arguments.shape, layout, root)
        jobs, texts = generator_jobs(versions, layout, arguments.shape, path, plan)
        rows += pairs(jobs, arguments.pairs, arguments.only)
        for process in texts:
            process.communicate()
    for shape in dict.fromkeys((arguments.shape, "stories260k")):
        plan = Plan((128, 512), (128, 1024), (4, 16), STEPS[shape], 1, 1, 1)
        for contestant in (*SIXTEEN_BITS, *EIGHT_BITS):
            if contestant.label in ROWS:
                path = model_path(shape, contestant.layout, root)
                measured, peers = peer_jobs(versions, contestant, shape, path, plan)
                rows += pairs(measured, arguments.pairs, arguments.only)
                for peer in peers:
                    peer.close()
    print(processor(), f"{arguments.pairs} pairs", sep="; ")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
