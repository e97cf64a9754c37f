"""Other families than LLaMA, beside transformers and llama.cpp with the same weights.

    python -m benchmarks.families                            all shapes
    python -m benchmarks.families --only qwen3_0.6b --pairs 20
    python -m benchmarks.families --only qwen3_0.6b --weights int4 --jobs decode prefill_128 rows_16

The shapes are those of real models, the weights are random; see `benchmarks.family_models`. One row or
sixteen decode behind 128 positions. All engines take their turn in each round. A figure is the median of the
rounds' ratios, with the interval that holds it with a probability of at least 95 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import SETS, Contestant, PeerProcess
from benchmarks.family_models import SHAPES
from benchmarks.make_model import model_path
from benchmarks.run import processor, versions
from benchmarks.versions import interval

JOBS: dict[str, dict[str, Any]] = {
    "decode": {"do": "steps", "rows": 1, "context": 128, "steps": 8},
    "rows_16": {"do": "steps", "rows": 16, "context": 128, "steps": 4},
    "prefill_128": {"do": "prefill", "tokens": 128},
    "prefill_512": {"do": "prefill", "tokens": 512},
}
_INT8_HEAD = "lolama int8, lm_head too"  # as Q8_0 has its output matrix
COMPARED: dict[str, dict[str, tuple[str, ...]]] = {
    "16-bit": {"lolama bf16 (core + quant)": ("transformers bf16", "llama.cpp BF16")},
    "int8": {
        "lolama int8": ("transformers bf16", "llama.cpp Q8_0"),
        _INT8_HEAD: ("transformers bf16", "llama.cpp Q8_0"),
    },
    "int4": {
        "lolama int4": ("llama.cpp Q4_0", "llama.cpp Q4_K_M", _INT8_HEAD, "lolama int8"),
        "lolama int4, lm_head int4": ("llama.cpp Q4_0", "llama.cpp Q4_K_M", _INT8_HEAD),
        "lolama Q4_K_M": ("llama.cpp Q4_K_M",),
    },
}
"""Weights → who of lolama is compared with whom."""


def measured(
    shape: str, root: Path, rounds: int, compared: Mapping[str, Sequence[str]], job: dict[str, Any]
) -> dict[str, Any]:
    """Figure → its value, or median and interval."""
    everyone = {each.label: each for contestants in SETS.values() for each in contestants}
    processes: dict[str, PeerProcess] = {}
    labels = dict.fromkeys([*compared, *chain.from_iterable(compared.values())])
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    tokens = job["rows"] if job["do"] == "steps" else job["tokens"]
    try:
        for label in seconds:
            contestant: Contestant = everyone[label]
            path = model_path(shape, contestant.layout, root)
            processes[label] = PeerProcess(contestant, path, os.cpu_count() or 1)
        for number in range(rounds):
            print(f"{shape}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for label in list(seconds)[:: -1 if number % 2 else 1]:
                seconds[label].append(median(processes[label].ask(job)))
    finally:
        for process in processes.values():
            process.close()
    found: dict[str, Any] = {
        f"{label}: tokens/s": round(tokens / median(times), 2) for label, times in seconds.items()
    }
    for mine, others in compared.items():
        for other in others:
            ratios = [b / a for a, b in zip(seconds[mine], seconds[other], strict=True)]
            found[f"{mine} / {other}"] = [median(ratios), *interval(ratios)]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--weights", nargs="+", choices=COMPARED, default=["16-bit", "int8"])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=["decode"])
    parser.add_argument("--pairs", type=int, default=20, help="rounds; default: 20")
    parser.add_argument(
        "--models", type=Path, help="where models are kept; default: a temporary folder"
    )
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    report = {"processor": processor(), "versions": versions()}
    compared: dict[str, tuple[str, ...]] = {}
    for weights in arguments.weights:
        compared |= COMPARED[weights]
    for shape in arguments.only:
        report[shape] = {
            job: measured(shape, root, arguments.pairs, compared, JOBS[job])
            for job in arguments.jobs
        }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
