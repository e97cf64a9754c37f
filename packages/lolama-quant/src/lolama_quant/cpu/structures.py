"""The structures of native/decoder.c and of its headers, filled with a model's weights."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lolama_quant.block_parts import ACTIVATIONS, NORMS, norms_of
from lolama_quant.cpu.library import NativeLibrary, dtype_number, format_number

if TYPE_CHECKING:
    import torch

    from lolama_core.protocols.decoder_kernel import (
        BlockWeights,
        DecoderShape,
        FeedForwardWeights,
        LinearWeights,
        MixtureWeights,
    )

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("w_gate", "w_up", "w_down")


class Linear(ctypes.Structure):
    """A weight, its scales and its bias; what else a grouped weight has, and the number of its dtype."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("weight", "scales", "bias", "group_scales", "block_scales")
        ),
        ("dtype", ctypes.c_int64),
    ]


class FeedForward(ctypes.Structure):
    """A gated feed-forward network."""

    _fields_ = [(name, Linear) for name in _FEED_FORWARD]


class Mixture(ctypes.Structure):
    """A mixture of experts; see native/experts.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("router", "shared_gate")),
        ("networks", ctypes.POINTER(FeedForward)),
    ]


class Block(ctypes.Structure):
    """The weights of a block. Its `Mixture` is empty if it has no experts."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in NORMS),
        *((name, Linear) for name in _ATTENTION),
        ("feed_forward", FeedForward),
        ("mixture", Mixture),
    ]


class Model(ctypes.Structure):
    """What all blocks of a step have in common."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "width", "heads", "kv_heads", "head_dim", "hidden")
        ),
        *(
            (name, ctypes.c_int64)
            for name in ("experts", "per_token", "expert_hidden", "shared_hidden")
        ),
        *(
            (name, ctypes.c_int)
            for name in ("weight_dtype", "taken", "cache_dtype", "isa", "int8_isa", "tiled")
        ),
        *((name, ctypes.c_int) for name in ("wide_norm", "activation")),
        *((name, ctypes.c_int) for name in ("router_dtype", "normalize")),
        *((name, ctypes.c_float) for name in ("eps", "query_scale", "residual_scale", "softcap")),
    ]


class Batch(ctypes.Structure):
    """The new positions of some rows."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "cosine", "sine", "query_scales")),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("starts", "counts")),
        *((name, ctypes.c_int64) for name in ("row_count", "window")),
    ]


class Pages(ctypes.Structure):
    """Which pages hold what; see native/pages.h."""

    _fields_ = [
        ("tables", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("width", "size", "stride", "head_stride")),
    ]


class Cache(ctypes.Structure):
    """Keys and values of each layer."""

    _fields_ = [
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("keys", "values")),
        ("pages", Pages),
    ]


def model_of(blocks: Sequence[BlockWeights], shape: DecoderShape, library: NativeLibrary) -> Model:
    """What a step for such blocks has in common, but for the dtype of the cache."""
    block, mixture = blocks[0], blocks[0].mixture
    number = number_of_linear(block.q_proj)
    assert number is not None
    linears = [linear for block in blocks for linear in linears_of(block)]
    scale, residual = shape.attention_scale, shape.residual_scale
    model = Model(
        layers=len(blocks),
        width=block.q_proj.size[1],
        heads=shape.num_heads,
        kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        hidden=0 if block.w_gate is None else block.w_gate.size[0],
        weight_dtype=number,
        taken=library.taken_by([number_of_linear(linear) for linear in linears]),
        isa=library.instruction_set,
        int8_isa=library.int8_instruction_set,
        wide_norm=block.q_norm is not None and len(block.q_norm) != shape.head_dim,
        activation=ACTIVATIONS.index(shape.activation),
        eps=shape.eps,
        # Scores are divided by the square root of head_dim.
        query_scale=1.0 if scale is None else scale * math.sqrt(shape.head_dim),
        residual_scale=1.0 if residual is None else residual,
        softcap=shape.attention_softcap or 0.0,
    )
    if mixture is not None:
        shared = mixture.shared_expert
        model.experts, model.per_token = len(mixture.experts), shape.experts_per_token or 0
        model.expert_hidden = len(mixture.experts[0].w_gate.weight)
        model.shared_hidden = 0 if shared is None else len(shared.w_gate.weight)
        model.normalize = shape.normalize_expert_weights
        model.router_dtype = number_of(mixture.router.dtype)
    return model


def block_of(block: BlockWeights) -> Block:
    """The addresses of a block's weights."""
    norms = {name: norm.data_ptr() for name, norm in norms_of(block).items()}
    attention = {name: _linear(getattr(block, name)) for name in _ATTENTION}
    if block.mixture is not None:
        return Block(**norms, **attention, mixture=_mixture(block.mixture))
    return Block(**norms, **attention, feed_forward=_feed_forward(block.feed_forward()))


def linears_of(block: BlockWeights) -> list[LinearWeights]:
    """All linears of a block."""
    networks = [block] if block.mixture is None else block.mixture.networks
    return [
        *(getattr(block, name) for name in _ATTENTION),
        *(getattr(network, name) for network in networks for name in _FEED_FORWARD),
    ]


def number_of(dtype: torch.dtype) -> int | None:
    """The number of a dtype in native/decoder.c; None for one that it does not know."""
    import torch

    return 3 if dtype == torch.int8 else dtype_number(dtype)


def number_of_linear(linear: LinearWeights) -> int | None:
    """The number of a linear's dtype, or of its grouped format."""
    if linear.form is None:
        return number_of(linear.weight.dtype)
    return format_number(linear.form)


def _mixture(mixture: MixtureWeights) -> Mixture:
    networks = mixture.networks
    gate = mixture.shared_gate
    return Mixture(
        router=mixture.router.data_ptr(),
        shared_gate=None if gate is None else gate.data_ptr(),
        networks=(FeedForward * len(networks))(*map(_feed_forward, networks)),
    )


def _feed_forward(network: FeedForwardWeights) -> FeedForward:
    return FeedForward(*(_linear(getattr(network, name)) for name in _FEED_FORWARD))


def _linear(linear: LinearWeights) -> Linear:
    parts = (linear.weight, linear.scale, linear.bias, linear.group_scale, linear.block_scale)
    addresses = [None if part is None else part.data_ptr() for part in parts]
    return Linear(*addresses, number_of_linear(linear))
