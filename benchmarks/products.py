"""Products of TinyLlama's linears alone: the native library's beside torch's, in time and in operations.

    python -m benchmarks.products
    python -m benchmarks.products --rows 1 512

One row is bound by memory, many by arithmetic, and a model cannot be faster than its products. Each goes over
copies of its weight that fit no cache together; all programs go by turns, and the best time counts. FBGEMM's,
of torch, takes weights that have been packed, and it is said how fast that goes; lolama does not use it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.run import processor
from benchmarks.shapes import SHAPES
from lolama_quant.cpu.int8_linear import native_linear
from lolama_quant.int8.backends import cpu
from lolama_quant.linear_kernel import NativeLinearKernel

_BYTES = 120 << 20

Product = Callable[[Tensor, Any], Tensor]
FBGEMM = "int8, FBGEMM"


def products(outputs: int) -> dict[str, tuple[torch.dtype, Product]]:
    """Name → dtype of the weights, and the product with float32 activations."""
    kernel, scale = NativeLinearKernel(), torch.rand(outputs)
    return {
        "bfloat16, native": (torch.bfloat16, lambda x, w: kernel.linear(x, [w], [None])),
        "bfloat16, torch": (torch.bfloat16, lambda x, w: F.linear(x.to(w.dtype), w).float()),
        "int8, native": (torch.int8, lambda x, w: native_linear(x, w, scale)),
        "int8, torch": (torch.int8, lambda x, w: cpu.torch_linear(x, w, scale)),
        FBGEMM: (torch.int8, torch.ops.quantized.linear_dynamic),
    }


def packed(weight: Tensor) -> Any:
    """An int8 weight as FBGEMM takes it."""
    outputs = len(weight)
    scale, zero = torch.rand(outputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such tensors are deprecated
        quantized = torch._make_per_channel_quantized_tensor(weight, scale, zero, 0)
    return torch.ops.quantized.linear_prepack(quantized, None)


def seconds(product: Product, x: Tensor, weights: list[Any]) -> float:
    """Seconds of one product, over all weights."""
    start = time.perf_counter()
    for weight in weights:
        product(x, weight)
    return (time.perf_counter() - start) / len(weights)


@torch.inference_mode()
def main() -> None:
    """Print a table for each number of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 64, 512])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}, threads: {torch.get_num_threads()}")
    width, hidden = SHAPES["tinyllama"].d_model, SHAPES["tinyllama"].hidden_dim
    for outputs, inputs in ((width, width), (hidden, width), (width, hidden)):
        named = products(outputs)
        weights: dict[str, list[Any]] = {}
        for name, (dtype, _) in named.items():
            copies = _BYTES // (outputs * inputs * dtype.itemsize)
            made = torch.randint(-127, 128, (copies, outputs, inputs), dtype=torch.int8)
            weights[name] = list(made.to(dtype))
        start = time.perf_counter()
        weights[FBGEMM] = [packed(weight) for weight in weights[FBGEMM]]
        speed = _BYTES / (time.perf_counter() - start) / 1e9
        print(f"\n{outputs} × {inputs}: FBGEMM packs {speed:.2f} GB/s of weights")
        for rows in arguments.rows:
            x = torch.randn(rows, inputs)
            best = dict.fromkeys(named, float("inf"))
            for _ in range(arguments.rounds):
                for name, (_, product) in named.items():
                    best[name] = min(best[name], seconds(product, x, weights[name]))
            print(f"\n{outputs} × {inputs}, rows: {rows}")
            for name, (dtype, _) in named.items():
                time_, size = best[name], outputs * inputs
                read = size * dtype.itemsize / time_ / 1e9
                print(
                    f"  {name:18} {time_ * 1e6:8.0f} µs {read:6.1f} GB/s of weights"
                    f" {2 * rows * size / time_ / 1e9:6.0f} G operations/s"
                )


if __name__ == "__main__":
    main()
