"""A whole decoding step by native/decoder.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lolama_quant.native_library import (
    NativeLibrary,
    describe,
    dtype_number,
    most_rows,
    native_library,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_core.protocols.decoder_kernel import BlockWeights, DecoderShape, LinearWeights

# Of more rows, attention and the rest of a step are no small part, and batches are what torch is good at.
_MOST_ROWS = 64

_NORMS = ("attention_norm", "ffn_norm")
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "w_gate", "w_up", "w_down")


class _Linear(ctypes.Structure):
    """``Linear`` of native/decoder.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "scales", "bias")]


class _Block(ctypes.Structure):
    """``Block`` of native/decoder.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _NORMS),
        *((name, _Linear) for name in _LINEARS),
    ]


class _Model(ctypes.Structure):
    """``Model`` of native/decoder.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "width", "heads", "kv_heads", "head_dim", "hidden")
        ),
        *(
            (name, ctypes.c_int)
            for name in ("weight_dtype", "cache_dtype", "isa", "int8_isa", "tiled")
        ),
        ("eps", ctypes.c_float),
    ]


class NativeDecoderKernel:
    """All blocks of a decoding step in one call, on a CPU: a `protocols.DecoderKernel`."""

    name = "native"

    def describe(self) -> str:
        """What it runs on here, or why it does not run."""
        return describe(int8=True)

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> NativeStep | None:
        """A step for blocks of one shape, on the CPU, with linears of one dtype; else None."""
        library = native_library()
        if isinstance(library, str) or not blocks:
            return None
        first = _shapes(blocks[0])
        dtype = blocks[0].q_proj.weight.dtype
        for block in blocks:
            if _shapes(block) != first or not _usable(block, dtype):
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
        self._library, self._layers = library, len(blocks)
        dtype = blocks[0].q_proj.weight.dtype
        number = _weight_number(dtype)
        assert number is not None
        self._can_tile = library.tiled is not None and dtype == torch.bfloat16
        self._fewest_outputs = min(shape[0] for shape in _shapes(blocks[0]))
        self.max_rows = min(most_rows(library, dtype), _MOST_ROWS)
        self._model = _Model(
            layers=len(blocks),
            width=blocks[0].q_proj.weight.shape[1],
            heads=shape.num_heads,
            kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            hidden=blocks[0].w_gate.weight.shape[0],
            weight_dtype=number,
            isa=library.instruction_set,
            int8_isa=library.int8_instruction_set,
            eps=shape.eps,
        )
        self._blocks = (_Block * len(blocks))(*map(_block, blocks))
        self._pointers = ctypes.c_void_p * len(blocks)

    def __call__(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        first_row: int,
        starts: Sequence[int] | Tensor,
        first_keys: Sequence[int] | Tensor,
    ) -> Tensor:
        """See `protocols.DecoderStep`."""
        assert not isinstance(starts, torch.Tensor) and not isinstance(first_keys, torch.Tensor)
        rows, capacity = x.shape[0], keys[0].shape[2]
        cache_dtype = dtype_number(keys[0].dtype)
        assert cache_dtype is not None and len(keys) == len(values) == self._layers
        # Beyond a cache's end lies someone else's memory.
        assert max(starts) < capacity and first_row + rows <= keys[0].shape[0]
        model = _Model.from_buffer_copy(self._model)
        model.cache_dtype = cache_dtype
        hidden = x.to(torch.float32, copy=True).contiguous()
        cos, sin = cos.contiguous(), sin.contiguous()
        threads, integers = torch.get_num_threads(), ctypes.c_int64 * rows
        # One row keeps its float32: it has time to spare. A tile has four outputs.
        model.tiled = self._can_tile and rows > 1 and self._fewest_outputs >= 4 * threads
        model_address = ctypes.addressof(model)
        scratch = torch.empty(
            self._library.decode_scratch(model_address, rows, threads), dtype=torch.uint8
        )
        self._library.decode(
            model_address,
            ctypes.addressof(self._blocks),
            hidden.data_ptr(),
            rows,
            cos.data_ptr(),
            sin.data_ptr(),
            self._pointers(*[layer.data_ptr() for layer in keys]),
            self._pointers(*[layer.data_ptr() for layer in values]),
            first_row,
            capacity,
            integers(*starts),
            integers(*first_keys),
            scratch.data_ptr(),
            threads,
        )
        return hidden


def _block(block: BlockWeights) -> _Block:
    norms = {name: getattr(block, name).data_ptr() for name in _NORMS}
    return _Block(**norms, **{name: _linear(getattr(block, name)) for name in _LINEARS})


def _linear(linear: LinearWeights) -> _Linear:
    parts = (linear.weight, linear.scale, linear.bias)
    return _Linear(*(None if part is None else part.data_ptr() for part in parts))


def _weight_number(dtype: torch.dtype) -> int | None:
    """How native/decoder.c calls a dtype of weights, of which it knows int8 besides the cache's."""
    return 3 if dtype == torch.int8 else dtype_number(dtype)


def _shapes(block: BlockWeights) -> list[tuple[int, ...]]:
    return [tuple(getattr(block, name).weight.shape) for name in _LINEARS]


def _usable(block: BlockWeights, dtype: torch.dtype) -> bool:
    linears: list[LinearWeights] = [getattr(block, name) for name in _LINEARS]
    vectors = [getattr(block, name) for name in _NORMS]
    vectors += [linear.bias for linear in linears if linear.bias is not None]
    scales = [linear.scale for linear in linears if linear.scale is not None]
    if len(scales) != (len(linears) if dtype == torch.int8 else 0):
        return False
    vectors += scales
    pairs = [(linear.weight, dtype) for linear in linears]
    # The library reads norms, biases and scales where they are, too, so they must be as it wants them.
    pairs += [(vector, torch.float32) for vector in vectors]
    return _weight_number(dtype) is not None and all(
        tensor.device.type == "cpu" and tensor.dtype == wanted and tensor.is_contiguous()
        for tensor, wanted in pairs
    )
