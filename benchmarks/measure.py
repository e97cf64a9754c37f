"""The run itself: each measurement goes round all peers before it is repeated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import read_bandwidth
from benchmarks.contestants import Contestant, PeerError, PeerProcess
from benchmarks.results import Results, Row, Start

BATCH_CONTEXT = 128


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        prompts: Lengths of prompts that are run.
        contexts: Positions in the cache while one row decodes; the first is part of every round.
        rows: Sequences that decode together.
        steps: Steps of one row; several rows make half as many.
        rounds: How often everything is repeated.
        long_rounds: The number of rounds in which longer contexts and several rows take part.
        loads: How often each peer is started.
    """

    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    rows: tuple[int, ...]
    steps: int
    rounds: int
    long_rounds: int
    loads: int

    def jobs(self, number: int) -> list[tuple[str, int, dict[str, Any]]]:
        """(kind, size, job) of one round."""
        jobs: list[tuple[str, int, dict[str, Any]]] = []
        # Decoding comes first, right after the probe that it is compared with.
        contexts = self.contexts if number < self.long_rounds else self.contexts[:1]
        one_row = [
            ("decode", n, {"do": "steps", "rows": 1, "context": n, "steps": self.steps})
            for n in contexts
        ]
        jobs += one_row[:1]
        jobs += [("prefill", n, {"do": "prefill", "tokens": n}) for n in self.prompts]
        if number < self.long_rounds:
            batch = {"do": "steps", "context": BATCH_CONTEXT, "steps": max(4, self.steps // 2)}
            jobs += [("batch", n, {**batch, "rows": n}) for n in self.rows]
        # Longer contexts go last and upwards: llama.cpp then runs each position of them once.
        return jobs + one_row[1:]


def measure(
    plan: Plan,
    contestants: list[Contestant],
    paths: dict[str, Path],
    results: Results,
    keep: Callable[[], None],
) -> None:
    """Start everybody, go round, and write what was measured into ``results``.

    Args:
        plan: What to measure.
        contestants: Who takes part.
        paths: Layout → the model.
        results: Gets rows and probes; a peer that fails keeps what it has.
        keep: Called after every round, so that a run cut short is not lost.
    """
    results.rows = [Row(c.label, c.engine, c.item, c.head_item) for c in contestants]
    processes: dict[str, PeerProcess] = {}
    try:
        for number in range(plan.loads):
            for contestant, row in zip(contestants, results.rows, strict=True):
                if not row.failure:
                    say(f"start {number + 1} of {plan.loads}: {row.label}")
                    start(contestant, row, paths[contestant.layout], results.threads, processes)
        for number in range(plan.rounds):
            results.bandwidth.append(read_bandwidth(results.threads))
            for kind, size, job in plan.jobs(number):
                say(f"round {number + 1} of {plan.rounds}: {kind} {size}")
                for row in results.rows:
                    if not row.failure:
                        ask(row, processes[row.label], kind, size, job)
            keep()
    finally:
        for process in processes.values():
            process.close()


def start(
    contestant: Contestant, row: Row, path: Path, threads: int, processes: dict[str, PeerProcess]
) -> None:
    """Start a peer, in place of the process that it has from the time before."""
    before = processes.pop(row.label, None)
    if before is not None:
        before.close()
    try:
        process = PeerProcess(contestant, path, threads)
    except PeerError as error:
        row.failure = str(error)
        say(f"{row.label} {error}")
        return
    processes[row.label] = process
    row.starts.append(Start(**process.hello["start"]))
    row.detail = process.hello["detail"]


def ask(row: Row, process: PeerProcess, kind: str, size: int, job: dict[str, Any]) -> None:
    """Have a peer do a job, and note how long it took."""
    try:
        seconds = process.ask(job)
    except PeerError as error:
        row.failure = f"{kind} {size}: {error}"
        say(f"{row.label} {row.failure}")
        return
    row.times.setdefault(kind, {}).setdefault(str(size), []).append(seconds)


def say(what: str) -> None:
    """Tell whoever waits how far it is; not part of the output."""
    print(what, file=sys.stderr, flush=True)
