"""A whole decoding step on an NVIDIA GPU, of kernels that are recorded and replayed together.

torch is imported where a model is there already: reports ask the kernel what it runs on without one.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from lolama_quant.block_parts import ACTIVATIONS, norms_of
from lolama_quant.triton.compiler import describe_triton, has_triton

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lolama_core.protocols.decoder_kernel import (
        BlockWeights,
        DecoderShape,
        LinearWeights,
        NewPositions,
    )

_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "w_gate", "w_up", "w_down")


class TritonDecoderKernel:
    """Seven launches for each block where torch's operators take thirty: a `protocols.DecoderKernel`.

    Args:
        device_type: Where weights must be; anything but a GPU only in Triton's interpreter.
    """

    name = "triton"
    switches = frozenset(
        {
            *("qk_norm", "norms", "activation"),
            *("attention_scale", "residual_scale", "query_scale_beta", "attention_softcap"),
        }
    )

    def __init__(self, device_type: str = "cuda") -> None:
        self._device_type = device_type

    def describe(self) -> str:
        """What it runs on here, or why it does not run."""
        if not _sees_gpu():
            return "for NVIDIA GPUs, of which torch sees none"
        return describe_triton()

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> TritonStep | None:
        """A step for blocks on the GPU, each with linears of one dtype; else None."""
        if shape.activation not in ACTIVATIONS or not all(map(self._usable, blocks)):
            return None
        if self._device_type == "cuda" and not has_triton():
            return None
        return TritonStep(blocks, shape)

    def _usable(self, block: BlockWeights) -> bool:
        import torch

        if block.mixture is not None:
            return False
        linears: list[LinearWeights] = [getattr(block, name) for name in _LINEARS]
        tensors = list(norms_of(block).values())
        for linear in linears:
            tensors += [t for t in (linear.weight, linear.scale, linear.bias) if t is not None]
        dtype = linears[0].weight.dtype
        return (
            all(linear.form is None for linear in linears)
            and dtype in (torch.int8, torch.bfloat16, torch.float16, torch.float32)
            and all(linear.weight.dtype == dtype for linear in linears)
            and all((linear.scale is not None) == (dtype == torch.int8) for linear in linears)
            and all(
                tensor.device.type == self._device_type
                and tensor.is_contiguous()
                and not tensor.is_neg()  # the kernels read memory
                for tensor in tensors
            )
            and len({linear.bias is None for linear in linears[:3]}) == 1  # of q, k and v
            and len({linear.bias is None for linear in linears[4:6]}) == 1  # of gate and up
            and len({norm.dtype for norm in (block.q_norm, block.k_norm) if norm is not None}) < 2
        )


class TritonStep:
    """A `protocols.DecoderStep`. The stream between blocks is float32; what products read is as wide as keys.

    Args:
        blocks: The weights, read where they are at every step.
        shape: What the weights do not tell.
    """

    max_rows = 1
    prompt_dtypes = ()
    fixed_order = False
    reads_places = True

    def __init__(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> None:
        self._blocks, self._shape = blocks, shape

    @property
    def cache_dtypes(self) -> Collection[torch.dtype]:
        """See `protocols.DecoderStep`."""
        import torch

        return (torch.float32, torch.bfloat16, torch.float16, torch.int8)

    def __call__(
        self, new: NewPositions, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Tensor:
        """See `protocols.DecoderStep`."""
        import torch

        from lolama_quant.triton.kernels.attention import attend
        from lolama_quant.triton.kernels.norms import add_normed
        from lolama_quant.triton.kernels.products import one_row
        from lolama_quant.triton.kernels.rotation import rotate_and_store

        assert new.positions is not None
        starts, (pages,) = new.positions[:, 0].contiguous(), new.pages.contiguous()
        capacity = len(pages) * keys[0].shape[2]
        first_keys = (starts + 1 - (new.window or capacity)).clamp_(min=0)
        shape, block = self._shape, self._blocks[0]
        dtype, device = keys[0].dtype, new.x.device
        if dtype == torch.int8:  # what products read is then as wide as their weights
            weight = block.q_proj.weight.dtype
            dtype = torch.float32 if weight == torch.int8 else weight
        inner = shape.num_heads * shape.head_dim
        kv_inner = shape.num_kv_heads * shape.head_dim
        feed_forward = len(block.feed_forward().w_gate.weight)
        eps, factor = shape.eps, shape.residual_scale

        def scratch(size: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(size, dtype=dtype, device=device)

        def multiply(x: Tensor, *linears: LinearWeights, y: Tensor, **options: Any) -> None:
            weights = [linear.weight for linear in linears]
            scales = [linear.scale for linear in linears]
            one_row(x, weights, scales, [linear.bias for linear in linears], y, **options)

        def add_product(x: Tensor, linear: LinearWeights, post_norm: Tensor | None) -> None:
            """Add a product to the stream, in one launch if it is not normed."""
            if post_norm is None:
                multiply(x, linear, y=stream, add=True, factor=factor)
                return
            multiply(x, linear, y=change)
            add_normed(change, post_norm, stream, eps, 1.0 if factor is None else factor)

        stream = new.x[0].to(torch.float32, copy=True).contiguous()
        change = torch.empty_like(stream)
        cos, sin = new.cos[0].contiguous(), new.sin[0].contiguous()
        projected = scratch(inner + 2 * kv_inner, torch.float32)
        queries, attended = (scratch(inner, dtype).view(-1, shape.head_dim) for _ in range(2))
        hidden = scratch(feed_forward, dtype)
        for block, own_keys, own_values in zip(self._blocks, keys, values, strict=True):
            multiply(
                *(stream, block.q_proj, block.k_proj, block.v_proj),
                y=projected,
                norm=block.attention_norm,
                eps=eps,
            )
            rotate_and_store(
                *(projected, cos, sin, starts, queries, own_keys, own_values, pages),
                q_norm=block.q_norm,
                k_norm=block.k_norm,
                eps=eps,
                query_scale=new.query_scales,
            )
            attend(
                *(queries, own_keys, own_values, pages, starts, first_keys, attended),
                scale=shape.attention_scale,
                cap=shape.attention_softcap,
            )
            add_product(attended.view(-1), block.o_proj, block.attention_post_norm)
            network = block.feed_forward()
            multiply(
                *(stream, network.w_gate, network.w_up),
                y=hidden,
                norm=block.ffn_norm,
                eps=eps,
                activation=shape.activation,
            )
            add_product(hidden, network.w_down, block.ffn_post_norm)
        return stream[None]


def _sees_gpu() -> bool:
    """Whether torch sees one, or would: where there is no driver, it need not be imported to say no."""
    if "torch" not in sys.modules:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return False
    import torch

    return torch.cuda.is_available()
