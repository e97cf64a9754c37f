"""Decoding steps of several rows over pages, recorded, beside steps whose operators are launched one by one.

    python -m benchmarks.gpu_rows --json rows.json

Before anything is timed, both have to lead to the same logits, to the rounding of sixteen bits: with keys and
values of bfloat16, and with those of int8. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.engine import prompt, timed
from benchmarks.gpu import NO_GPU, make_model, wait, where
from benchmarks.gpu_tables import GPU_SHAPES
from benchmarks.tables import markdown
from lolama_core.protocols import CausalLM
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.row_memory import RowMemory

CACHES: dict[str, CacheDtype | None] = {"bfloat16": None, "int8": "int8"}
STEPS = 20
NEAR = 2e-2
"""Logits may differ by this part of their size where products are rounded to sixteen bits."""


class Rows:
    """Rows of different lengths that decode."""

    def __init__(
        self, model: CausalLM, count: int, context: int, cache: CacheDtype | None, *, record: bool
    ) -> None:
        self.memory = RowMemory(model, rows=count, record=record, cache_dtype=cache)
        self.rows = [Row() for _ in range(count)]
        for place, row in enumerate(self.rows):
            length = max(1, context - 7 * place % context)
            assert self.memory.begin(row, [], length + 1, context + 4 * STEPS)
            ids = torch.tensor([prompt(length)], device=model.device)
            with torch.inference_mode():
                self.memory.run([row], model.embed(ids), [length])

    @torch.inference_mode()
    def step(self) -> Tensor:
        """Logits (B, V) on the host, as whoever chooses tokens has them."""
        return self.memory.decode(self.rows, [5] * len(self.rows)).cpu()


def step_seconds(
    model: CausalLM, count: int, context: int, cache: CacheDtype | None
) -> tuple[float, float]:
    """Median seconds of a recorded step, and of one that is not.

    Raises:
        AssertionError: if their logits differ.
    """
    recorded, plain = (Rows(model, count, context, cache, record=each) for each in (True, False))
    for _ in range(3):
        found, expected = recorded.step().double(), plain.step().double()
        distance = float((found - expected).norm() / expected.norm())
        assert distance < NEAR, f"logits of {count} rows differ by {distance:.3f} of their size"
    times: list[list[float]] = [[], []]
    for _ in range(STEPS):
        for rows, taken in zip((recorded, plain), times, strict=True):
            wait()
            taken.append(timed(rows.step))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    """Check, measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=GPU_SHAPES, default="tinyllama")
    parser.add_argument("--context", type=int, default=1024, help="positions of the longest row")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--device", default="cuda", help="cpu to try the program")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    seconds = {}
    for weights in ("bfloat16", "int8"):
        config = GPU_SHAPES[options.shape]
        kept, runner = make_model(config, device, int8=weights == "int8")
        for name, cache in CACHES.items():
            for count in options.rows:
                key = f"weights {weights}, cache {name}, {count} rows"
                seconds[key] = step_seconds(runner, count, options.context, cache)
        del kept, runner
    table = [
        [key, f"{1e3 * one:.2f}", f"{1e3 * other:.2f}", f"{other / one:.2f}"]
        for key, (one, other) in seconds.items()
    ]
    print(markdown(["", "recorded, ms", "one by one, ms", "times as fast"], table))
    if options.json:
        report = {**where(device), "shape": options.shape, "context": options.context}
        options.json.write_text(json.dumps({**report, "steps": seconds}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
