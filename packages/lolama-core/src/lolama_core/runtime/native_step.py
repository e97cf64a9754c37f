"""Runs of blocks in one call of a kernel, where one is installed that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.cache_slots import FixedSlots, Slots
from lolama_core.model.config import LlamaConfig
from lolama_core.model.kv_cache import KVCache
from lolama_core.model.layer_kinds import Angles
from lolama_core.model.scaling import query_scales
from lolama_core.protocols import CacheSlots, DecoderKernel, DecoderStep
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.decoder_kernel import (
    BlockWeights,
    DecoderShape,
    KnowsSwitches,
    NewPositions,
    switches_on,
)
from lolama_core.runtime.block_weights import block_weights, kind_of_weights, tensors_of
from lolama_core.runtime.known import UnknownPart, check_block
from lolama_core.runtime.paged_cache import PagedCache


@dataclass(frozen=True)
class NativeRun:
    """Neighboring blocks, and a kernel's step that was made for their weights.

    Attributes:
        kernel: What made the step.
        step: Reads the weights where they are, at every call.
        layers: Which layer of the cache each block writes to.
        kind: Which kind of layers of the model they are; see `layer_kinds`.
        shape: What their weights do not tell.
        memory: The memory of the weights, which the step knows by its address.
    """

    kernel: DecoderKernel
    step: DecoderStep
    layers: Sequence[int]
    kind: int
    shape: DecoderShape
    memory: Sequence[Tensor]

    def takes(self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None) -> bool:
        """Whether it can run a pass of (B, T, D)."""
        rows, width = x.shape[:2]
        return (
            isinstance(cache, KVCache | PagedCache)
            and cache.dtype in self.step.cache_dtypes
            and (width == 1 or cache.dtype in self.step.prompt_dtypes)
            and (width > 1 or rows <= self.step.max_rows)
            and isinstance(slots, Slots | FixedSlots if self.step.reads_places else Slots)
            and min(slots.counts) > 0
            and not slots.spans
        )

    def run(
        self,
        x: Tensor,
        angles: Angles,
        kinds: Sequence[LlamaConfig],
        slots: CacheSlots,
        cache: KVCache | PagedCache,
        only_last: bool,
    ) -> Tensor:
        """(B, T, D) through its blocks.

        Padding is left out, and comes back as zeros; with ``only_last`` the result is (B, D).
        """
        assert isinstance(slots, Slots | FixedSlots)
        batch, width = x.shape[:2]
        keys, values = cache.write_in_place(slots)
        real = None
        if isinstance(slots, Slots) and min(slots.counts) < width:
            real = slots.scatter[:2]
        turned = (part[:, 0].expand(batch, -1, -1) for part in angles[self.kind])
        wide, cos, sin = (
            part.flatten(0, 1) if real is None else part[real] for part in (x, *turned)
        )
        new = NewPositions(
            x=wide.float(),
            cos=cos,
            sin=sin,
            pages=cache.pages,
            starts=slots.starts,
            positions=slots.positions if self.step.reads_places else None,
            counts=slots.counts,
            window=kinds[self.kind].sliding_window,
            only_last=only_last,
            query_scales=self._query_scales(slots, real),
        )
        hidden = self.step(
            new, [keys[layer] for layer in self.layers], [values[layer] for layer in self.layers]
        ).to(x.dtype)
        if only_last:
            return hidden
        if real is None:
            return hidden.view(x.shape)
        whole = hidden.new_zeros(x.shape)
        whole[real] = hidden
        return whole

    def _query_scales(self, slots: CacheSlots, real: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """See `NewPositions`."""
        beta, length = self.shape.query_scale_beta, self.shape.query_scale_length
        if beta is None or length is None:
            return None
        scales = query_scales(slots.positions, beta, length)
        return scales.flatten() if real is None else scales[real]


def native_runs(
    blocks: Sequence[nn.Module], kernels: Sequence[DecoderKernel]
) -> tuple[dict[int, NativeRun], set[int], dict[int, str]]:
    """The runs of neighboring blocks of one kind that a kernel takes.

    Returns:
        First block of a run → the run; the blocks that compute what their names say, in a run or not; and
        for each block that is in no run, why.
    """
    runs: dict[int, NativeRun] = {}
    checked: set[int] = set()
    reasons: dict[int, str] = {}
    known: dict[int, tuple[Block, BlockWeights, DecoderShape]] = {}
    for place, module in enumerate(blocks):
        try:
            block = check_block(module)
            checked.add(place)
            known[place] = (block, *block_weights(block))
        except UnknownPart as reason:
            reasons[place] = str(reason)

    def kind(place: int) -> object:
        if place not in known:
            return None
        block, weights, shape = known[place]
        return block.attention.kind, shape, *kind_of_weights(weights)

    for found, places in groupby(range(len(blocks)), key=kind):
        if found is None:
            continue
        neighbors = list(places)
        run = _bind([known[place] for place in neighbors], kernels)
        if run is not None:
            runs[neighbors[0]] = run
        else:
            used = switches_on(*known[neighbors[0]][1:])
            reasons |= dict.fromkeys(neighbors, _why_none(used, kernels))
    return runs, checked, reasons


def _bind(
    blocks: Sequence[tuple[Block, BlockWeights, DecoderShape]], kernels: Sequence[DecoderKernel]
) -> NativeRun | None:
    """The step of the first kernel that takes these blocks; None if none does."""
    weights, shape = [read for _, read, _ in blocks], blocks[0][2]
    for kernel in kernels:
        known = switches_on(weights[0], shape) <= _switches(kernel)
        step = kernel.bind(weights, shape) if known else None
        if step is not None:
            layers = [block.attention.layer for block, _, _ in blocks]
            kind = blocks[0][0].attention.kind
            read = chain.from_iterable(map(tensors_of, weights))
            memory = [tensor.detach() for tensor in read if tensor is not None]
            return NativeRun(kernel, step, layers, kind, shape, memory)
    return None


def _why_none(used: set[str], kernels: Sequence[DecoderKernel]) -> str:
    """Why no kernel takes blocks that do this otherwise than LLaMA's."""
    unknown = {kernel.name: used - _switches(kernel) for kernel in kernels}
    if names := used.intersection(*unknown.values()):
        return f"no kernel knows its {', '.join(sorted(names))}"
    if not any(unknown.values()):
        return "no kernel takes its weights on this device"
    return "; ".join(
        f"{kernel} does not know its {', '.join(sorted(names))}"
        if names
        else f"{kernel} does not take its weights on this device"
        for kernel, names in unknown.items()
    )


def _switches(kernel: DecoderKernel) -> set[str]:
    """What a kernel can do otherwise than LLaMA."""
    return set(kernel.switches) if isinstance(kernel, KnowsSwitches) else set()
