"""What runs a model as it is now, for reports."""

from __future__ import annotations

from torch import nn

from lolama_core.protocols import CausalLM, DecoderKernel, LinearKernel
from lolama_core.runtime.fast_products import FastProducts
from lolama_core.runtime.kernels import kernels_of
from lolama_core.runtime.runner import Runner, runner_of


def kernels_in_use(module: nn.Module) -> dict[LinearKernel | None, int]:
    """How many linears inside ``module`` take their products of few rows from which kernel.

    Returns:
        Kernel → number of linears. None stands for torch's own product; what no linear uses is left out.
    """
    products = FastProducts([module], kernels_of(module).linear)
    counts: dict[LinearKernel | None, int] = {}
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            kernel = products.kernel_of(layer.weight)
            counts[kernel] = counts.get(kernel, 0) + 1
    return counts


def decoder_in_use(model: nn.Module | CausalLM) -> DecoderKernel | None:
    """The kernel that runs decoding steps of ``model``, or of some of its blocks; None if no kernel does."""
    runner = runner_of(model)  # type: ignore[arg-type]
    runs = runner.native.values() if isinstance(runner, Runner) else ()
    return next((run.kernel for run in runs), None)


def slower_blocks(model: CausalLM) -> dict[int, str]:
    """The blocks of ``model`` that no kernel runs as a whole, and why."""
    runner = runner_of(model)
    return dict(runner.reasons) if isinstance(runner, Runner) else {}
