"""Peers side by side: every measurement goes round all of them before it is repeated.

    python -m benchmarks.run --shape tinyllama --json results/tinyllama.json
    python -m benchmarks.run --short

Prints the tables of docs/benchmarks.md, which also says how the figures come about.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contestants import SETS
from benchmarks.engine import ROOM
from benchmarks.make_model import model_path
from benchmarks.measure import Plan, measure
from benchmarks.results import Results
from benchmarks.shapes import SHAPES, STEPS, THREADS
from benchmarks.summary import summary
from benchmarks.tables import figures, ratio_tables, setup

_PROMPTS = (128, 512)


def versions() -> dict[str, str]:
    """What takes part."""
    names = ["torch", "transformers", "llama_cpp_python", "ctranslate2"]
    names += ["lolama-core", "lolama-quant", "lolama-hub"]
    found = {"Python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> str:
    """Its name, the best instructions that torch uses, its cores and its memory."""
    name = platform.processor() or platform.machine()
    try:
        described = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        described = []
    names = [line.split(":")[1].strip() for line in described if line.startswith("model name")]
    import psutil
    import torch

    gigabytes = psutil.virtual_memory().total / 1e9
    cores = os.cpu_count()
    model = f"{names[0] if names else name} with {torch.backends.cpu.get_cpu_capability()}"
    return f"{model}, {cores} cores, {gigabytes:.0f} GB, {platform.system()}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, help="default: tinyllama, or 160m with --short")
    add("--weights", choices=SETS, default="16-bit", help="what the run is about; default: 16-bit")
    add("--short", action="store_true", help="a few minutes: no longer context than 1024, few rows")
    add("--only", action="append", default=[], help="peers whose label contains this; repeatable")
    add("--contexts", type=int, nargs="+", help="default: 128 2048 8192 (what the shape can)")
    add("--rows", type=int, nargs="*", help="default: 1 4 16 64")
    add("--rounds", type=int, default=3, help="default: 3")
    add("--long-rounds", type=int, help="rounds with longer contexts and several rows (all)")
    add("--loads", type=int, help="how often each peer is started (3; 1 with --short)")
    add("--threads", type=int, help="of every peer (all cores; 1 for stories260k)")
    add("--models", type=Path, help="where the random models are kept (a temporary folder)")
    add("--named", default="", help="what the page calls the run (its shape and weights)")
    add("--json", type=Path, help="where to write the results")
    return parser.parse_args()


def make_plan(arguments: argparse.Namespace, shape: str) -> Plan:
    """What the command line asks for, of what the shape can do."""
    longest = SHAPES[shape].max_seq_len - ROOM
    contexts = arguments.contexts or ([128, 1024] if arguments.short else [128, 2048, 8192])
    rows = arguments.rows
    if rows is None:
        rows = [4, 16] if arguments.short else [1, 4, 16, 64]
    rounds = arguments.rounds
    return Plan(
        prompts=tuple(n for n in _PROMPTS if n <= longest),
        contexts=tuple(n for n in sorted(contexts) if n <= longest),
        rows=tuple(rows),
        steps=STEPS[shape],
        rounds=rounds,
        long_rounds=rounds if arguments.long_rounds is None else arguments.long_rounds,
        loads=arguments.loads or (1 if arguments.short else 3),
    )


def main() -> None:
    """Measure, print the tables, write the JSON."""
    arguments = parse()
    shape = arguments.shape or ("160m" if arguments.short else "tinyllama")
    plan = make_plan(arguments, shape)
    only = [part.lower() for part in arguments.only]
    chosen = [
        c
        for c in SETS[arguments.weights]
        if not only or any(part in c.label.lower() for part in only)
    ]
    root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    paths = {c.layout: model_path(shape, c.layout, root) for c in chosen}
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        processor=processor(),
        threads=arguments.threads or THREADS.get(shape) or os.cpu_count() or 1,
        shape=shape,
        weights=arguments.weights,
        versions=versions(),
        named=arguments.named,
    )

    def keep() -> None:
        if arguments.json:
            results.write(arguments.json, summary(results))

    measure(plan, chosen, paths, results, keep)
    print(figures(results), ratio_tables(results), setup(results), sep="\n\n")


if __name__ == "__main__":
    main()
