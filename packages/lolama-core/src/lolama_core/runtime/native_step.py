"""Runs of blocks in one call of a kernel, where one is installed that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from lolama_core.model.cache_slots import FixedSlots, Slots
from lolama_core.model.kv_cache import KVCache
from lolama_core.model.masks import PassPlan
from lolama_core.protocols import CacheSlots, DecoderKernel, DecoderStep
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.decoder_kernel import BlockWeights, DecoderShape, NewPositions
from lolama_core.runtime.known import tensors_of


@dataclass(frozen=True)
class NativeRun:
    """Neighboring blocks, and a kernel's step that was made for their weights.

    Attributes:
        kernel: What made the step.
        step: Reads the weights where they are, at every call.
        layers: Which layer of the cache each block writes to.
        memory: Of the weights, which the step knows by its address.
    """

    kernel: DecoderKernel
    step: DecoderStep
    layers: Sequence[int]
    memory: Sequence[Tensor]

    def takes(self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None) -> bool:
        """Whether it can run a pass of (B, T, D)."""
        rows, width = x.shape[:2]
        return (
            isinstance(cache, KVCache)
            and (
                rows <= self.step.max_rows if width == 1 else cache.dtype == self.step.prompt_dtype
            )
            and isinstance(slots, Slots | FixedSlots if self.step.reads_places else Slots)
            and min(slots.counts) > 0
        )

    def run(
        self,
        x: Tensor,
        plan: PassPlan,
        cache: KVCache,
        window: int | None,
        only_last: bool,
    ) -> Tensor:
        """(B, T, D) through its blocks.

        Padding is left out, and comes back as zeros; with ``only_last`` the result is (B, 1, D).
        """
        slots = plan.slots
        assert isinstance(slots, Slots | FixedSlots)
        batch, width = x.shape[:2]
        keys, values = cache.write_in_place(slots)
        real = None
        if isinstance(slots, Slots) and min(slots.counts) < width:
            real = slots.scatter[:2]
        wide, cos, sin = (
            part.flatten(0, 1) if real is None else part[real]
            for part in (
                x,
                *(angles[:, 0].expand(batch, -1, -1) for angles in (plan.cos, plan.sin)),
            )
        )
        new = NewPositions(
            x=wide.float(),
            cos=cos,
            sin=sin,
            rows=cache.row_list(),
            starts=slots.positions[:, 0].contiguous() if self.step.reads_places else slots.starts,
            counts=slots.counts,
            window=window,
            only_last=only_last,
        )
        hidden = self.step(
            new, [keys[layer] for layer in self.layers], [values[layer] for layer in self.layers]
        ).to(x.dtype)
        if only_last:
            return hidden[:, None]
        if real is None:
            return hidden.view(x.shape)
        whole = hidden.new_zeros(x.shape)
        whole[real] = hidden
        return whole


def bind(
    layers: Sequence[int],
    weights: Sequence[BlockWeights],
    shape: DecoderShape,
    kernels: Sequence[DecoderKernel],
) -> NativeRun | None:
    """The step of the first kernel that takes these blocks; None if none does."""
    for kernel in kernels:
        step = kernel.bind(weights, shape)
        if step is not None:
            read = chain.from_iterable(map(tensors_of, weights))
            return NativeRun(kernel, step, layers, [t.detach() for t in read if t is not None])
    return None
