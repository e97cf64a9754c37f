"""Peers side by side: every measurement goes round all of them before it is repeated.

    python -m benchmarks.run --shape tinyllama
    python -m benchmarks.run --shape 160m --short

Times on a shared machine swing by half within minutes; ratios of one interleaved run hold. A decode step
is the 20th percentile of its times (a busy neighbour only ever adds), a prefill the best of its times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.make_model import model_path
from benchmarks.shapes import SHAPES, cache_bytes, weight_count

ITEM = {"f32": 4, "bf16": 2, "f16": 2}


@dataclass(frozen=True)
class Contestant:
    """One engine with one layout of the model."""

    label: str
    engine: str
    layout: str
    environment: dict[str, str] = field(default_factory=dict)


CONTESTANTS = [
    Contestant("lolama bf16", "lolama", "hf-bf16"),
    Contestant("lolama f16", "lolama", "hf-f16"),
    Contestant("lolama bf16, core alone", "lolama", "hf-bf16", {"LOLAMA_BENCH_KERNELS": "0"}),
    Contestant("transformers bf16", "transformers", "hf-bf16"),
    Contestant("llama.cpp BF16", "llama.cpp", "gguf-bf16"),
    Contestant("llama.cpp F16", "llama.cpp", "gguf-f16"),
    Contestant("ctranslate2 int8", "ctranslate2", "ct2-int8"),
]


class Runner:
    """A peer's process."""

    def __init__(self, contestant: Contestant, path: Path, context: int) -> None:
        self.contestant = contestant
        environment = {**os.environ, "BENCH_CONTEXT": str(context), **contestant.environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer", contestant.engine, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.loaded = self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contestant.label} ended with {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, **job: Any) -> dict[str, Any]:
        """Have it do a job."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def bandwidth() -> float:
    """Bytes a second that all cores read from memory: a sum over 1 GiB, the best of three."""
    import torch

    data = torch.zeros(1 << 27, dtype=torch.int64)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begin)
    return data.nbytes / best


def percentile(times: list[float], share: float) -> float:
    """The value that ``share`` of the times are at or below."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Result:
    """One row of the table; rates in tokens a second, memory in bytes beyond ``import torch``."""

    label: str
    load: float
    memory: int
    peak: int
    prefill: dict[str, float]
    decode: dict[str, float]
    batch: dict[str, float]


def measure(
    shape: str, labels: list[str], root: Path, contexts: list[int], rows: list[int], rounds: int
) -> tuple[list[Result], list[float]]:
    """Start all contestants, go round them, and sum up; also the bandwidth of each round."""
    chosen = [c for c in CONTESTANTS if not labels or any(label in c.label for label in labels)]
    paths = {c.layout: model_path(shape, c.layout, root) for c in chosen}
    runners = [Runner(c, paths[c.layout], max(contexts) + 300) for c in chosen]
    times: dict[tuple[str, str, int], list[float]] = {}
    probes = []
    jobs: list[tuple[str, int, dict[str, Any]]] = []
    jobs += [
        ("prefill", n, {"do": "prefill", "tokens": n}) for n in (128, 512) if n <= max(contexts)
    ]
    jobs += [("decode", n, {"do": "decode", "context": n, "steps": 12}) for n in contexts]
    jobs += [("batch", n, {"do": "decode", "context": 128, "steps": 6, "rows": n}) for n in rows]
    for _ in range(rounds):
        probes.append(bandwidth())
        for kind, size, job in jobs:
            for runner in runners:
                seconds = runner.ask(**job)["seconds"]
                times.setdefault((runner.contestant.label, kind, size), []).extend(seconds)
    results = []
    for runner in runners:
        label, memory = runner.contestant.label, runner.ask(do="memory")
        rates: dict[str, dict[str, float]] = {"prefill": {}, "decode": {}, "batch": {}}
        for kind, size, _ in jobs:
            found = times[label, kind, size]
            if found:
                best = min(found) if kind == "prefill" else percentile(found, 0.2)
                produced = {"prefill": size, "decode": 1, "batch": size}[kind]
                rates[kind][str(size)] = produced / best
        results.append(
            Result(label, runner.loaded["load"], memory["memory"], memory["peak"], **rates)
        )
        runner.close()
    return results, probes


def versions() -> dict[str, str]:
    """What took part."""
    names = [
        "torch",
        "transformers",
        "llama_cpp_python",
        "ctranslate2",
        "lolama-core",
        "lolama-quant",
    ]
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(shape: str, results: list[Result], probe: float) -> str:
    """Markdown, with the share of the bandwidth that decoding at the first context reaches."""
    config = SHAPES[shape]
    columns = [
        f"{kind} {size}"
        for kind in ("prefill", "decode", "batch")
        for size in getattr(results[0], kind)
    ]
    lines = [
        "| | " + " | ".join(columns) + " | bandwidth | load s | memory MB | peak MB |",
        "|---|" + "---|" * (len(columns) + 4),
    ]
    for result in results:
        cells = []
        for column in columns:
            kind, size = column.split()
            rate = getattr(result, kind).get(size)
            cells.append(f"{rate:.1f}" if rate else "")
        context, rate = next(iter(result.decode.items()))
        item = next((size for name, size in ITEM.items() if name in result.label.lower()), 1)
        moved = weight_count(config) * item + cache_bytes(config, int(context))
        share = f"{rate * moved / probe:.0%}"
        megabytes = [f"{n / 1e6:.0f}" for n in (result.memory, result.peak)]
        row = [result.label, *cells, share, f"{result.load:.1f}", *megabytes]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument(
        "--only", action="append", default=[], help="contestants whose label contains this"
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--rows", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one round at the smallest sizes")
    parser.add_argument("--models", type=Path, help="where the random models are kept")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.contexts, arguments.rows, arguments.rounds = [128], [], 1
    root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    results, probes = measure(
        arguments.shape, arguments.only, root, arguments.contexts, arguments.rows, arguments.rounds
    )
    probe = max(probes)
    print(table(arguments.shape, results, probe))
    print(f"\nbandwidth probe: {', '.join(f'{p / 1e9:.0f}' for p in probes)} GB/s")
    if arguments.json:
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "shape": arguments.shape,
            "versions": versions(),
            "bandwidth": probes,
            "results": [asdict(result) for result in results],
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
