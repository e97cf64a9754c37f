"""Everything that needs a GPU, checked and measured in at most ten minutes.

    python -m benchmarks.gpu_all results/gpu
    python -m benchmarks.gpu_all /tmp/tried --device cpu --small      without a GPU, to try this program

Each part is a process with a time limit of its own. A part that fails stops no other. What comes after the
limit of all is not run, and is listed. The folder gets ``results.jsonl``, which begins with a line on the
device and the versions and has a line for each part, ``results.md``, and what each part has printed.

Exit codes: 0 all parts passed, 1 some failed or were not run, 2 a wrong command line, 3 no GPU is here.

A later change that needs a GPU adds a line to `parts`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import NO_GPU, where
from benchmarks.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600
FAILED, NO_DEVICE = 1, 3


@dataclass(frozen=True)
class Part:
    """Something to check or to measure.

    Attributes:
        name: Its files have it, too.
        shows: What it shows, in a few words.
        seconds: It is ended after these, and begins only if as many are left.
        arguments: What Python is given. ``{json}`` stands for the file of what it has measured.
        environment: Variables for it.
    """

    name: str
    shows: str
    seconds: int
    arguments: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


def tests(*paths: str) -> list[str]:
    """The arguments that run tests."""
    return ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths]


def parts(device: str, small: bool) -> list[Part]:
    """All of them, the most telling first: together they fit into `LIMIT`.

    Args:
        device: ``cuda``, or ``cpu``, where recorded steps run the same operators one by one, Triton its
            interpreter, and other kernels stand in for Triton's.
        small: Whether tiny models are enough.
    """
    core, quant = "packages/lolama-core/tests", "packages/lolama-quant/tests"
    recorded = f"{core}/runtime/test_recorded_step.py"
    answers = ["tests/test_cuda.py", f"{quant}/triton/kernels"] if device == "cuda" else [recorded]
    measured = ["--device", device, "--json", "{json}"]
    tiny = ["--shape", "stories260k", "--context", "64"]
    compiled = [] if small else ["--compiled"]
    rows = [*tiny, "--rows", "1", "3"] if small else []
    found = [
        Part(
            "answers",
            "answers of the CPU, recorded steps, int8, products with grouped weights",
            180,
            tests(*answers),
        ),
        Part(
            "rows",
            "steps of several rows over pages, recorded or not; int8 cache",
            100,
            ["-m", "benchmarks.gpu_rows", *rows, *measured],
        ),
        Part(
            "steps",
            "a step, a prompt, one-row products; beside transformers",
            140,
            ["-m", "benchmarks.gpu", *(tiny if small else []), *compiled, *measured],
        ),
        Part(
            "switches",
            "steps of kernels with each switch of LLaMA's descendants, beside the blocks",
            80,
            ["-m", "benchmarks.gpu_switches", *(tiny if small else []), *measured],
        ),
    ]
    if device == "cpu":
        # It takes a part of a second for each program of a kernel: one shape with each dtype of weights.
        few = "test_equals_the_blocks and (grouped or int8) or compiler"
        found.append(
            Part(
                "triton",
                "Triton's kernels in its interpreter",
                90,
                tests(f"{quant}/triton", "-k", few),
                {"TRITON_INTERPRET": "1"},
            )
        )
        alone = {"OMP_NUM_THREADS": "1"}  # tiny products take longer on several threads
        found = [replace(each, environment={**each.environment, **alone}) for each in found]
    elif not small:
        more = ["--shape", "7b", *measured]
        found.append(
            Part("steps-7b", "the same of 7 billion weights", 90, ["-m", "benchmarks.gpu", *more])
        )
    return found


def run(part: Part, folder: Path, left: float) -> dict[str, Any]:
    """Run a part, and say what came of it."""
    found: dict[str, Any] = {"part": part.name, "shows": part.shows}
    if left < part.seconds:
        return {**found, "outcome": "not run: no time", "seconds": 0.0}
    result, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, *(each.replace("{json}", str(result)) for each in part.arguments)]
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        # A part may start processes, which end with it.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **part.environment},
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    outcome = {0: "passed", None: f"took longer than {part.seconds} s"}.get(status)
    found["outcome"] = outcome or f"failed with {status}"
    found["seconds"] = round(time.monotonic() - begin, 1)
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    said = [line for line in lines if not line.startswith("|")]  # its tables are in the log
    found["said"] = said[-1] if said else ""
    if result.exists():
        found["measured"] = json.loads(result.read_text("utf-8"))
    return found


def run_all(
    chosen: Sequence[Part], folder: Path, seconds: float, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Run the parts one after another, and write what came of each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + seconds, []
    with (folder / "results.jsonl").open("w", encoding="utf-8") as lines:
        print(json.dumps(facts), file=lines, flush=True)
        for part in chosen:
            print(f"{part.name}: {part.shows}", file=sys.stderr, flush=True)
            found.append(run(part, folder, end - time.monotonic()))
            print(json.dumps(found[-1]), file=lines, flush=True)
    return found


def table(facts: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Markdown: where and with what, and a row for each part."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    rows = [
        [one["part"], one["shows"], one["outcome"], f"{one['seconds']:.0f}", one.get("said", "")]
        for one in found
    ]
    head = ["part", "shows", "outcome", "seconds", "said last"]
    return f"{facts['device']}, {facts['date'][:10]}, {versions}.\n\n{markdown(head, rows)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure, write, print; see the module for exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_all",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write; it is made")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    parser.add_argument("--small", action="store_true", help="tiny models")
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"of all; default: {LIMIT}")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return NO_DEVICE
    facts = where(torch.device(options.device))
    chosen = parts(options.device, options.small)
    folder = options.folder.resolve()
    found = run_all(chosen, folder, options.seconds, facts)
    written = table(facts, found)
    (folder / "results.md").write_text(written + "\n", encoding="utf-8")
    print(written)
    return FAILED if any(one["outcome"] != "passed" for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
