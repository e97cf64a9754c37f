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

from benchmarks.contestants import (
    EIGHT_BITS,
    FOUR_BITS,
    SIXTEEN_BITS,
    Contestant,
    PeerProcess,
)
from benchmarks.make_model import model_path
from benchmarks.measure import BATCH_CONTEXT, Plan
from benchmarks.run import processor
from benchmarks.shapes import SHAPES, STEPS, THREADS
from benchmarks.summary import seconds
from benchmarks.tables import markdown

Jobs: TypeAlias = dict[str, tuple[Callable[[], float], Callable[[], float]]]
"""Name → what gives the seconds of this version, and of the other one."""

TextJobs: TypeAlias = dict[str, tuple[int, int, int, int, int]]
"""Name → which number of the answers of `benchmarks.text_peer`, the least of how many of them, and a job."""

HERE = Path(__file__).resolve().parents[1]
ROWS = ("lolama bf16 (core + quant)", "lolama bf16 (core alone)", "lolama int8", "lolama int4")
DEMO_TEXTS: TextJobs = {"4 tokens": (2, 20, 1, 5, 4), "200 tokens": (2, 3, 1, 5, 200)}
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


def text_jobs(
    versions: tuple[Version, Version], model: str, name: str, threads: int, asked: TextJobs
) -> tuple[Jobs, list[subprocess.Popen[str]]]:
    """Texts as `TextGenerator` and `BatchGenerator` make them, and the two processes that do."""
    script = str(HERE / "benchmarks" / "text_peer.py")
    this, other = (
        subprocess.Popen(
            [v.python, script, model, str(threads)],
            cwd=v.checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(OMP_NUM_THREADS=str(threads)),
        )
        for v in versions
    )

    def ask(process: subprocess.Popen[str], place: int, times: int, *job: int) -> float:
        assert process.stdin is not None and process.stdout is not None
        taken = []
        for _ in range(times):
            print(*job, file=process.stdin, flush=True)
            taken.append(float(process.stdout.readline().split()[place]))
        return min(taken)

    jobs: Jobs = {
        f"{name}{kind}": (partial(ask, this, *job), partial(ask, other, *job))
        for kind, job in asked.items()
    }
    return jobs, [this, other]


def planned_texts(plan: Plan) -> TextJobs:
    """What is asked of a model of some shape: prompts, tokens after them, and several rows."""
    asked = {f"prompt {n}": (0, 1, 1, n, 1) for n in plan.prompts}
    asked |= {f"decode {n}": (1, 1, 1, n, plan.steps) for n in plan.contexts}
    return asked | {f"{n} rows": (1, 1, n, BATCH_CONTEXT, plan.steps) for n in plan.rows}


def contestants() -> list[Contestant]:
    """Those that `ROWS` names, of whatever weights."""
    known = {each.label: each for each in (*SIXTEEN_BITS, *EIGHT_BITS, *FOUR_BITS)}
    return [known[label] for label in ROWS]


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
    plan = Plan((128, 512), (128, 1024), (4, 16), STEPS[arguments.shape], 1, 1, 1)
    texts = [("demo", "demo, a text of ", 1, DEMO_TEXTS)]
    for layout in ("hf-bf16", "int8-kept"):
        path = model_path(arguments.shape, layout, root)
        name = f"{arguments.shape}, texts {layout}: "
        threads = THREADS.get(arguments.shape) or os.cpu_count() or 1
        texts.append((str(path), name, threads, planned_texts(plan)))
    for each in texts:
        jobs, processes = text_jobs(versions, *each)
        rows += pairs(jobs, arguments.pairs, arguments.only)
        for process in processes:
            process.communicate()
    for shape in dict.fromkeys((arguments.shape, "stories260k")):
        plan = Plan((128, 512), (128, 1024), (4, 16), STEPS[shape], 1, 1, 1)
        for contestant in contestants():
            path = model_path(shape, contestant.layout, root)
            measured, peers = peer_jobs(versions, contestant, shape, path, plan)
            rows += pairs(measured, arguments.pairs, arguments.only)
            for peer in peers:
                peer.close()
    print(processor(), f"{arguments.pairs} pairs", sep="; ")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
