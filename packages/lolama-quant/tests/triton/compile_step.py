"""Compiles kernels for a GPU that need not be here: python compile_step.py 90.

Those of some decoding steps, and of products with grouped weights. Prints a line for each: its name, the
bytes of shared memory that it takes, and its constants.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from lolama_core.protocols.grouped import FORMATS
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import Pages
from lolama_core.testing.decoder_kernel import DecoderKernelSuite, run_by
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.int8.quantizer import Int8Quantizer
from lolama_quant.triton.decoder_kernel import TritonDecoderKernel
from lolama_quant.triton.kernels import attention, norms, products, rotation
from lolama_quant.triton.kernels.grouped_products import grouped_rows

HOPPER = 90
SOME = {
    "qk_norm": "head",
    "norms": "both",
    "activation": "gelu_tanh",
    "attention_softcap": 50.0,
    "residual_scale": 0.5,
}
OTHERS = {
    "qk_norm": "width",
    "norms": "after",
    "activation": "gelu",
    "query_scale_beta": 0.5,
    "query_scale_length": 4,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bfloat16", {"head_dim": 64}),
    ("float32", {"head_dim": 256}),
    ("bfloat16", {"head_dim": 256, **SOME}),
    ("int8", {"head_dim": 128, **OTHERS}),
    ("int8", {"head_dim": 256, "residual_scale": 0.5, "attention_softcap": 50.0}),
]


class NoGPU:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def compile_alone(capability: int) -> None:
    """Whatever is launched from here on is compiled, and nothing runs."""
    driver.set_active(NoGPU(capability))
    launch, seen = JITFunction.run, set()

    def compile_it(self: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        made = launch(self, *arguments, grid=grid, warmup=True, **constants)
        if made.hash not in seen:
            seen.add(made.hash)
            print(made.metadata.name, made.metadata.shared, constants)

    JITFunction.run = compile_it
    for module in (attention, norms, products, rotation):
        module.can_overlap = lambda device: capability >= HOPPER  # type: ignore[attr-defined]


@torch.inference_mode()
def main() -> None:
    compile_alone(int(sys.argv[1]))
    for weights, shape in CASES:
        dtype = torch.float32 if weights == "float32" else torch.bfloat16
        model = DecoderKernelSuite().model(dtype, num_layers=1, d_model=768, **shape)
        if weights == "int8":
            Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
        fast = run_by(TritonDecoderKernel("cpu"), model)
        cache: Any = model.make_cache(1, 300)
        if weights == "int8":
            cache = PagedCache(Pages(cache, 10, cache_dtype="int8"), [Row()])
        fast.forward_embeds(model.embed(torch.tensor([[3]])), cache)
    for form in FORMATS:
        layer = GroupedLinear(512, 768, form)
        parts = layer.weight, layer.group_scale, layer.block_scale, form
        for rows, dtype in ((1, torch.bfloat16), (17, torch.float16), (1, torch.float32)):
            grouped_rows(torch.zeros(rows, 512, dtype=dtype), *parts)


if __name__ == "__main__":
    main()
