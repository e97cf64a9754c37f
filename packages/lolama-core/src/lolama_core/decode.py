"""A decoding step in one call of a kernel, where one is installed that can take it.

The blocks of `Llama` stay what defines the model; this stands beside them. It is used only while the
model is what it was when the kernel was bound: a module that was swapped (by a quantizer, or by whoever
tries something), a weight that moved, or a hook brings the blocks themselves back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lolama_core.block import Block
from lolama_core.cache_slots import FixedSlots, Slots
from lolama_core.kernels import installed_kernels
from lolama_core.kv_cache import KVCache
from lolama_core.linear import Linear
from lolama_core.norm import RMSNorm
from lolama_core.protocols import CacheSlots, DecoderKernel, DecoderStep
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.decoder_kernel import (
    BlockWeights,
    DecoderShape,
    HasLinearWeights,
    LinearWeights,
)

_PARTS = {
    "attention_norm": RMSNorm,
    "attention.q_proj": Linear,
    "attention.k_proj": Linear,
    "attention.v_proj": Linear,
    "attention.o_proj": Linear,
    "ffn_norm": RMSNorm,
    "feed_forward.w_gate": Linear,
    "feed_forward.w_up": Linear,
    "feed_forward.w_down": Linear,
}


def decoder_kernels() -> list[DecoderKernel]:
    """The kernels that installed packages provide, through the entry point ``lolama.decoder_kernels``.

    Raises:
        NotAvailableError: if one cannot be loaded.
    """
    return installed_kernels("lolama.decoder_kernels")


class BoundStep:
    """A kernel's step, and the modules whose weights it was made for."""

    def __init__(self, kernel: DecoderKernel, step: DecoderStep, blocks: nn.ModuleList) -> None:
        self.kernel, self._step = kernel, step
        self._blocks, self._count = blocks, len(blocks)
        # Where each module hangs, what hung there, and where its parameters lay.
        self._places: list[tuple[dict[str, nn.Module | None], str, nn.Module]] = []
        for module in blocks.modules():
            for name, child in module.named_children():
                self._places.append((module._modules, name, child))
        self._parameters = list(blocks.parameters())
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]

    @property
    def max_rows(self) -> int:
        """Up to how many rows it is used."""
        return self._step.max_rows

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copied or unpickled model has weights of its own: it starts without a kernel.
        return type(None), ()

    def takes(self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None) -> bool:
        """Whether this pass is a decoding step of the model that was bound, and nobody is watching."""
        return (
            x.shape[1] == 1
            and x.shape[0] <= self.max_rows
            and isinstance(cache, KVCache)
            and isinstance(slots, Slots | FixedSlots if self._step.reads_places else Slots)
            and min(slots.counts) == 1
            and cache.first_row is not None
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and self.is_current()
        )

    def is_current(self) -> bool:
        """Whether the model is what it was when the kernel was bound, and has no hooks."""
        return (
            len(self._blocks) == self._count
            and all(
                modules.get(name) is module
                and not module._forward_hooks
                and not module._forward_pre_hooks
                and "forward" not in module.__dict__
                for modules, name, module in self._places
            )
            and [parameter.data_ptr() for parameter in self._parameters] == self._addresses
        )

    def run(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        slots: Slots | FixedSlots,
        cache: KVCache,
        window: int | None,
    ) -> Tensor:
        """(B, 1, D) through all blocks, in place of `Block.forward`; ``cos`` and ``sin`` (B, 1, 1, hd)."""
        first_row = cache.first_row
        assert first_row is not None
        keys, values = cache.write_in_place(slots)
        starts: Sequence[int] | Tensor = slots.starts
        first_keys: Sequence[int] | Tensor
        if self._step.reads_places:
            starts = slots.positions[:, 0].contiguous()
            first_keys = (starts + 1 - (window or cache.capacity)).clamp_(min=0)
        else:
            first_keys = [max(0, total - window) if window else 0 for total in slots.totals]
        wide, cos, sin = x[:, 0].float(), cos[:, 0, 0], sin[:, 0, 0]
        hidden = self._step(wide, cos, sin, keys, values, first_row, starts, first_keys)
        return hidden[:, None].to(x.dtype)


def bind(
    blocks: nn.ModuleList, shape: DecoderShape, kernels: Sequence[DecoderKernel]
) -> BoundStep | None:
    """The first kernel that takes these blocks; None if they are no longer plain, or no kernel does."""
    weights = []
    for block in blocks:
        if type(block) is not Block:
            return None
        parts = {path: _part(block.get_submodule(path), kind) for path, kind in _PARTS.items()}
        if any(part is None for part in parts.values()):
            return None
        names = {path.rpartition(".")[2]: part for path, part in parts.items()}
        weights.append(BlockWeights(**names))  # type: ignore[arg-type] # the paths end in its field names
    for kernel in kernels:
        step = kernel.bind(weights, shape)
        if step is not None:
            return BoundStep(kernel, step, blocks)
    return None


def _part(module: nn.Module, kind: type[nn.Module]) -> Tensor | LinearWeights | None:
    """What the kernel reads of one part; None if the part is not plain."""
    if type(module) is RMSNorm and kind is RMSNorm:
        return module.weight
    if type(module) is Linear and kind is Linear:
        return LinearWeights(weight=module.weight, bias=module.bias)
    if kind is Linear and isinstance(module, HasLinearWeights):
        return module.linear_weights()
    return None


def decoder_in_use(module: nn.Module) -> DecoderKernel | None:
    """The kernel that runs decoding steps inside a loaded model; None if its blocks do. For reports."""
    for part in module.modules():
        step = getattr(part, "decode_step", None)
        if isinstance(step, BoundStep) and step.is_current():
            return step.kernel
    return None
