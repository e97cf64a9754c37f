"""A whole decoding step, or a prompt, by native/decoder.c.

torch is imported where a model is there already: reports ask the kernel what it runs on without one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from lolama_quant.block_parts import ACTIVATIONS, norms_of
from lolama_quant.cpu.library import (
    ANY_ROWS,
    NativeLibrary,
    describe,
    format_number,
    most_rows,
    native_library,
)
from lolama_quant.cpu.structures import (
    Batch,
    Block,
    Cache,
    Model,
    Pages,
    block_of,
    linears_of,
    model_of,
    number_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lolama_core.protocols.decoder_kernel import (
        BlockWeights,
        DecoderShape,
        LinearWeights,
        NewPositions,
    )

_SCALE_BYTES = 2
"""Behind the codes of a vector of int8, see native/int8_cache.h."""

_MOST_INT8_HEAD_DIM = 512
"""Sums of whole numbers of wider heads would not fit 32 bits: see native/int8_tiles.h."""


class NativeDecoderKernel:
    """All blocks of a decoding step, or a prompt, in one call, on a CPU: a `protocols.DecoderKernel`."""

    name = "native"
    switches = frozenset(
        {
            *("qk_norm", "norms", "activation"),
            *("attention_scale", "residual_scale", "query_scale_beta", "attention_softcap"),
            "num_experts",
        }
    )

    def describe(self) -> str:
        """What it runs on here, or why it does not run."""
        return describe(int8=True)

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> NativeStep | None:
        """A step for blocks of one shape, on the CPU, with linears of one dtype or all grouped; else None."""
        library = native_library()
        if isinstance(library, str) or not blocks or shape.activation not in ACTIVATIONS:
            return None
        first = _shapes(blocks[0])
        for block in blocks:
            if _shapes(block) != first or not _usable(block, blocks[0].q_proj):
                return None
        return NativeStep(library, blocks, shape)


class NativeStep:
    """A `protocols.DecoderStep`: holds the addresses of the weights.

    Args:
        library: The native library.
        blocks: The weights, read where they are at every step.
        shape: Heads and epsilon.
    """

    reads_places = False

    def __init__(
        self,
        library: NativeLibrary,
        blocks: Sequence[BlockWeights],
        shape: DecoderShape,
    ) -> None:
        import torch

        self._library, self._layers = library, len(blocks)
        dtype = blocks[0].q_proj.weight.dtype
        self._can_tile = library.tiled is not None and dtype == torch.bfloat16
        # Codes of grouped weights are int8, or uint8.
        self._is_fixed = dtype in (torch.float32, torch.int8, torch.uint8)
        self._fewest_outputs = min(outputs for outputs, _ in _shapes(blocks[0]))
        self._most_rows = ANY_ROWS if self._is_fixed else most_rows(library, dtype)
        self._model = model_of(blocks, shape, library)
        self._blocks = (Block * len(blocks))(*map(block_of, blocks))
        self._pointers = ctypes.c_void_p * len(blocks)

    @property
    def max_rows(self) -> int:
        """See `protocols.DecoderStep`."""
        return ANY_ROWS if self.fixed_order or self._is_tiled(2) else self._most_rows

    @property
    def fixed_order(self) -> bool:
        """With weights of float32, int8 and grouped ones: see native/decoder.c."""
        return self._is_fixed

    @property
    def cache_dtypes(self) -> Collection[torch.dtype]:
        """See `protocols.DecoderStep`."""
        import torch

        floats = (torch.float32, torch.bfloat16, torch.float16)
        return (*floats, torch.int8) if self._model.head_dim <= _MOST_INT8_HEAD_DIM else floats

    @property
    def prompt_dtypes(self) -> Collection[torch.dtype]:
        """All of `cache_dtypes` where sums have a fixed order, or with AVX2 alone.

        Else bfloat16 and int8 with weights of bfloat16, if the processor multiplies that, or none.
        """
        import torch

        if self.fixed_order or self._library.has_panels:
            return self.cache_dtypes
        if self._is_tiled(2) and self._library.decodes_prompts(ctypes.addressof(self._model)):
            return (torch.bfloat16, torch.int8)
        return ()

    def _is_tiled(self, positions: int) -> bool:
        import torch

        # One row keeps its float32: it has time to spare. A tile has four outputs.
        enough = self._fewest_outputs >= 4 * torch.get_num_threads()
        return self._can_tile and positions > 1 and enough

    def __call__(
        self, new: NewPositions, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Tensor:
        """See `protocols.DecoderStep`."""
        import torch

        batch, width = new.pages.shape
        positions, first = len(new.x), keys[0]
        cache_dtype = number_of(first.dtype)
        assert cache_dtype is not None and len(keys) == len(values) == self._layers
        page_stride, head_stride, position_stride, _ = first.stride()
        vector = self._model.head_dim + (_SCALE_BYTES if first.dtype == torch.int8 else 0)
        assert position_stride == vector and first.dtype in self.cache_dtypes
        assert page_stride % vector == 0 and head_stride % vector == 0
        assert {layer.stride() for layer in (*keys, *values)} == {first.stride()}
        assert positions == batch == len(new.counts) or first.dtype in self.prompt_dtypes
        # Beyond a cache's end lies someone else's memory.
        ends = [start + count for start, count in zip(new.starts, new.counts, strict=True)]
        pages = new.pages.contiguous()
        assert max(ends) <= width * first.shape[2] and sum(new.counts) == positions
        lowest, highest = pages.aminmax()
        assert lowest.item() >= 0 and highest.item() < len(first)
        model = Model.from_buffer_copy(self._model)
        model.cache_dtype, model.tiled = cache_dtype, self._is_tiled(positions)
        hidden = new.x.resolve_neg().to(torch.float32, copy=True).contiguous()
        cos, sin = (table.resolve_neg().contiguous() for table in (new.cos, new.sin))
        scales = None if new.query_scales is None else new.query_scales.contiguous()
        threads, integers = torch.get_num_threads(), ctypes.c_int64 * batch
        places = Batch(
            x=hidden.data_ptr(),
            cosine=cos.data_ptr(),
            sine=sin.data_ptr(),
            query_scales=None if scales is None else scales.data_ptr(),
            starts=integers(*new.starts),
            counts=integers(*new.counts),
            row_count=batch,
            window=new.window or 0,
        )
        cache = Cache(
            keys=self._pointers(*[layer.data_ptr() for layer in keys]),
            values=self._pointers(*[layer.data_ptr() for layer in values]),
            pages=Pages(
                tables=pages.data_ptr(),
                width=width,
                size=first.shape[2],
                stride=page_stride // vector,
                head_stride=head_stride // vector,
            ),
        )
        model_address = ctypes.addressof(model)
        size = self._library.decode_scratch(model_address, positions, threads)
        scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
        self._library.decode(
            model_address,
            ctypes.addressof(self._blocks),
            ctypes.addressof(places),
            ctypes.addressof(cache),
            new.only_last,
            scratch.data_ptr(),
            threads,
        )
        return hidden[:batch] if new.only_last and positions > batch else hidden


def _shapes(block: BlockWeights) -> list[tuple[int, ...]]:
    return [linear.size for linear in linears_of(block)]


def _usable(block: BlockWeights, first: LinearWeights) -> bool:
    """Whether the library can read a block where it is, and its linears are of the dtype of ``first``."""
    import torch

    linears, pairs = linears_of(block), []
    for linear in linears:
        if (linear.form is None) is not (first.form is None):
            return False
        if linear.form is None:
            pairs.append((linear.weight, first.weight.dtype))
            is_int8 = first.weight.dtype == torch.int8
            if number_of(first.weight.dtype) is None or (linear.scale is not None) is not is_int8:
                return False
            continue
        if format_number(linear.form) is None:
            return False
        dtypes = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}
        for name, (dtype, _) in linear.form.tensors(*linear.size).items():
            tensor = getattr(linear, name)
            if tensor is None:
                return False
            pairs.append((tensor, dtypes[dtype]))
    # The library reads norms, biases and scales where they are, too, so they must be as it wants them, and no
    # negative of what their memory holds.
    others = [part for linear in linears for part in (linear.bias, linear.scale)]
    pairs += [
        (vector, torch.float32)
        for vector in (*norms_of(block).values(), *others)
        if vector is not None
    ]
    if block.mixture is not None:
        router, gate = block.mixture.router, block.mixture.shared_gate
        pairs += [(part, router.dtype) for part in (router, gate) if part is not None]
        if router.dtype == torch.int8 or number_of(router.dtype) is None:
            return False
    readable = all(
        tensor.device.type == "cpu"
        and tensor.dtype == wanted
        and tensor.is_contiguous()
        and not tensor.is_neg()
        for tensor, wanted in pairs
    )
    return readable and (block.mixture is None or _scores_differ(block.mixture.router))


def _scores_differ(router: torch.Tensor) -> bool:
    """Whether no two experts score every token alike: which of them torch chooses is its own affair."""
    return len(router.unique(dim=0)) == len(router)  # type: ignore[no-untyped-call]
