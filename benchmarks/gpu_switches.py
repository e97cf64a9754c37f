"""Decoding steps with each switch of LLaMA's descendants: kernels beside the blocks' own forward.

    python -m benchmarks.gpu_switches --json switches.json

A model of random weights is run by kernels, by its blocks, and by the same blocks in float32. The kernels
have to come as near to float32 as the blocks do, or nearly so, and on a GPU they may decline nothing but
experts. On a CPU the installed kernels take the place of Triton's, to try this program.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import timed
from benchmarks.gpu import NO_GPU, make_model, wait, where
from benchmarks.gpu_rows import Rows
from benchmarks.gpu_tables import GPU_SHAPES
from benchmarks.tables import markdown
from lolama_core import Llama, LlamaConfig
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.runner import Runner
from lolama_core.testing.switches import SWITCHED

LAYERS, STEPS, WRONG = 4, 20, 1
CASES: list[tuple[str, CacheDtype | None]] = [
    ("float32", None),
    ("bfloat16", None),
    ("int8", "int8"),
]
"""Weights, and keys and values if those have another dtype."""
SLACK, LEAST = 2.0, {"float32": 1e-4, "bfloat16": 2e-3, "int8": 2e-3}
"""Kernels may be this many times as far from float32 as the blocks are, and this far in any case."""


class WrongNumbers(Exception):
    """What a kernel computes is not what the blocks compute."""


def config_of(shape: str, switches: dict[str, Any]) -> LlamaConfig:
    """A few layers of a shape, with switches."""
    return LlamaConfig(**{**vars(GPU_SHAPES[shape]), "num_layers": LAYERS, **switches})


def models(config: LlamaConfig, device: torch.device, weights: str) -> tuple[Llama, Llama]:
    """A model with such weights, and the same that computes in float32."""
    model = make_model(config, device, int8=weights == "int8")[0]
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # of loaded models these are float32
            parameter.data = parameter.float()
        if name.endswith("norm.weight"):
            parameter.normal_(1.0, 0.3)
    same = copy.deepcopy(model).float()
    return (same if weights == "float32" else model), same


def distance(found: Tensor, expected: Tensor) -> float:
    """How far logits are from others, as a part of their size."""
    wide, exact = found.double(), expected.double()
    return float((wide - exact).norm() / exact.norm())


def compare(
    name: str,
    device: torch.device,
    shape: str,
    context: int,
    weights: str,
    cache: CacheDtype | None,
) -> dict[str, Any]:
    """Distances from float32, and median seconds of a step, of kernels and of blocks; or why they decline.

    Raises:
        WrongNumbers: if kernels are much farther from float32 than blocks are.
    """
    model, exact = models(config_of(shape, SWITCHED[name]), device, weights)
    # Rows keep no runner, and a runner keeps no model.
    fast, blocks = Runner(model, Kernels.installed()), Runner(model, Kernels())
    wide = Runner(exact, Kernels())
    if fast.reasons:
        return {"declined": "; ".join(dict.fromkeys(fast.reasons.values()))}
    record = device.type == "cuda"
    ways = {
        "kernels": Rows(fast, 1, context, cache, record=record),
        "blocks": Rows(blocks, 1, context, cache, record=record),
        "float32": Rows(wide, 1, context, None, record=False),
    }
    far = {"kernels": 0.0, "blocks": 0.0}
    for _ in range(3):
        logits = {way: rows.step() for way, rows in ways.items()}
        for way in far:
            far[way] = max(far[way], distance(logits[way], logits["float32"]))
    if not far["kernels"] <= max(LEAST[weights], SLACK * far["blocks"]):
        raise WrongNumbers(
            f"{name}, weights {weights}, cache {cache or 'as wide'}: kernels are {far['kernels']:.4f}"
            f" of the logits' size away from float32, blocks {far['blocks']:.4f}"
        )
    times: dict[str, list[float]] = {way: [] for way in far}
    for _ in range(STEPS):
        for way, taken in times.items():
            wait()
            taken.append(timed(ways[way].step))
    return {"distance": far, "seconds": {way: statistics.median(t) for way, t in times.items()}}


def main() -> int:
    """Check, measure, print, and write the JSON. 1: something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=GPU_SHAPES, default="tinyllama")
    parser.add_argument("--context", type=int, default=200, help="positions before the steps")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--device", default="cuda", help="cpu to try the program")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    found: dict[str, dict[str, Any]] = {}
    wrong = []
    for weights, cache in CASES:
        for name, switches in SWITCHED.items():
            key = f"{name}, weights {weights}, cache {cache or 'as wide'}"
            try:
                found[key] = compare(name, device, options.shape, options.context, weights, cache)
            except WrongNumbers as error:
                wrong.append(str(error))
                continue
            why = found[key].get("declined")
            if why and device.type == "cuda" and "num_experts" not in switches:
                wrong.append(f"{key}: {why}")
    rows = [
        [
            key,
            *(f"{one['distance'][way]:.1e}" for way in ("kernels", "blocks")),
            *(f"{1e3 * one['seconds'][way]:.2f}" for way in ("kernels", "blocks")),
        ]
        if "distance" in one
        else [key, one["declined"], "", "", ""]
        for key, one in found.items()
    ]
    head = ["", "kernels from float32", "blocks from float32", "kernels, ms", "blocks, ms"]
    print(markdown(head, rows))
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    if options.json:
        report = {**where(device), "shape": options.shape, "context": options.context}
        options.json.write_text(json.dumps({**report, "switches": found}, indent=1) + "\n")
    return WRONG if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
