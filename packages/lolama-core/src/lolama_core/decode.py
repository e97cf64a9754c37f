"""A decoding step, or a prompt, in one call of a kernel, where one is installed that can take it.

The blocks of `Llama` stay what defines the model; this stands beside them. It is used only while the
model is what it was when the kernel was bound: a module that was swapped (by a quantizer, or by whoever
tries something), a weight that moved, or a hook brings the blocks themselves back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import contains

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
    NewPositions,
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
        # What `is_current` looks at, by nothing but C functions over lists: between two tokens all weights
        # have gone through the processor's caches, so it is the number of objects touched that takes time.
        modules = list(blocks.modules())
        self._attributes = [module.__dict__ for module in modules]
        self._hooks = [module._forward_hooks for module in modules]
        self._hooks += [module._forward_pre_hooks for module in modules]
        self._parents = [module._modules for module in modules if module._modules]
        self._children = [*chain.from_iterable(map(dict.values, self._parents))]
        self._parameters = list(blocks.parameters())
        self._addresses = [*map(Tensor.data_ptr, self._parameters)]

    @property
    def max_rows(self) -> int:
        """Up to how many rows it is used."""
        return self._step.max_rows

    @property
    def prompt_dtype(self) -> torch.dtype | None:
        """With keys and values of this dtype it is used for prompts, too."""
        return self._step.prompt_dtype

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copied or unpickled model has weights of its own: it starts without a kernel.
        return type(None), ()

    def takes(self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None) -> bool:
        """Whether this pass is one of the model that was bound, that it can run, and nobody is watching."""
        rows, width = x.shape[:2]
        return (
            isinstance(cache, KVCache)
            and (rows <= self.max_rows if width == 1 else cache.dtype == self.prompt_dtype)
            and isinstance(slots, Slots | FixedSlots if self._step.reads_places else Slots)
            and min(slots.counts) > 0
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and self.is_current()
        )

    def is_current(self) -> bool:
        """Whether the model is what it was when the kernel was bound, and has no hooks."""
        return (
            not any(self._hooks)
            and not any(map(contains, self._attributes, repeat("forward")))
            and [*chain.from_iterable(map(dict.values, self._parents))] == self._children
            and [*map(Tensor.data_ptr, self._parameters)] == self._addresses
        )

    def run(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        slots: Slots | FixedSlots,
        cache: KVCache,
        window: int | None,
        only_last: bool,
    ) -> Tensor:
        """(B, T, D) through all blocks, in place of `Block.forward`; ``cos`` and ``sin`` (B, 1, T, hd).

        Padding is left out, and comes back as zeros; with ``only_last`` the result is (B, 1, D).
        """
        batch, width = x.shape[:2]
        keys, values = cache.write_in_place(slots)
        real = None
        if isinstance(slots, Slots) and min(slots.counts) < width:
            real = slots.scatter[:2]
        wide, cos, sin = (
            part.flatten(0, 1) if real is None else part[real]
            for part in (x, *(angles[:, 0].expand(batch, -1, -1) for angles in (cos, sin)))
        )
        new = NewPositions(
            x=wide.float(),
            cos=cos,
            sin=sin,
            rows=cache.row_list(),
            starts=slots.positions[:, 0].contiguous() if self._step.reads_places else slots.starts,
            counts=slots.counts,
            window=window,
            only_last=only_last,
        )
        hidden = self._step(new, keys, values).to(x.dtype)
        if only_last:
            return hidden[:, None]
        if real is None:
            return hidden.view(x.shape)
        whole = hidden.new_zeros(x.shape)
        whole[real] = hidden
        return whole


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
