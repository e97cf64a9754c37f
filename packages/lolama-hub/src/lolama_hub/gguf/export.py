"""A resolved model → what a GGUF file has of it: metadata, tensors, and how each is made.

Nothing here is known twice. What is found is read again by what reads files, and a model of which other
settings or tensors would be read is refused. That reading also says where in a stored tensor the rows of each
canonical one are, and in which order.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.protocols.checkpoint import CheckpointIO, GGUFValue
from lolama_core.protocols.checks import is_number
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_hub.folder.fields import shown
from lolama_hub.gguf.architectures import ARCHITECTURES, Architecture
from lolama_hub.gguf.blocks import q8_0_blocks
from lolama_hub.gguf.export_metadata import model_metadata, rope_meaning, rope_tensors
from lolama_hub.gguf.export_tokenizer import INSTEAD, tokenizer_metadata
from lolama_hub.gguf.generation import sampling_metadata
from lolama_hub.gguf.listed_tokenizer import PHI3_PLAIN
from lolama_hub.gguf.metadata import GGUFModel
from lolama_hub.gguf.resolve_gguf import Interpreted, interpret
from lolama_hub.gguf.stored_weights import is_linear
from lolama_hub.gguf.tensor_names import written_names

if TYPE_CHECKING:
    from torch import Tensor

OUTTYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7)}
"""What llama.cpp's converter calls a type of weights → the type, and its number in ``general.file_type``."""

_SIXTEEN = {"float16": "F16", "bfloat16": "BF16", "float32": "BF16"}
"""Dtype of weights → the type of 16 bits that llama.cpp's converter takes for it."""

_AT_ONCE = 1 << 24  # values
_BLOCK = 32  # values in a block of Q8_0
_MOST_HALF = 65504.0  # the largest number of float16

Normal = Callable[[Mapping[str, JSON]], Mapping[str, JSON]]
"""A ``model`` block → the same with all fields that are set, as its family writes them."""


@dataclass(frozen=True)
class Header:
    """Type and shape of a tensor: a `protocols.TensorHeader`."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Written:
    """A header that is to be written: a `protocols.GGUFHeader`."""

    path: Path
    metadata: Mapping[str, GGUFValue]
    tensors: Mapping[str, Header]
    factors: Mapping[str, list[float]]
    version: int = 3

    def numbers(self, name: str) -> list[float]:
        """The factors of rotary pairs, as float32 has them."""
        return [_as_float32(one) for one in self.factors[name]]


@dataclass(frozen=True)
class GGUFContent:
    """A model as a GGUF file has it.

    Attributes:
        metadata: Key → value, in order.
        tensors: Name → type and shape.
        left_out: Names of what the model says and the file has no place for.
    """

    metadata: Mapping[str, GGUFValue]
    tensors: Mapping[str, Header]
    left_out: Sequence[str]
    _read: Interpreted = field(repr=False)
    _factors: Mapping[str, list[float]] = field(repr=False)

    def parts(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, int, Tensor]]:
        """Name of a stored tensor, which of its rows come first, and rows as they are stored.

        Args:
            tensors: Canonical name and tensor, of all, in any order.

        Raises:
            ModelError: for numbers that the type does not have.
        """
        import torch

        for name, factors in self._factors.items():
            yield name, 0, torch.tensor(factors)
        for name, tensor in tensors:
            key, moved = self._read.names[name], self._read.moved.get(name)
            rows = tensor if moved is None else moved.inverse(tensor)
            rows = rows.unsqueeze(0) if rows.dim() == 1 else rows
            begin = 0 if moved is None else moved.first_row(len(rows))
            step = max(1, _AT_ONCE // rows.shape[-1])
            for first in range(0, len(rows), step):
                made = _stored(rows[first : first + step], self.tensors[key].dtype, name)
                yield key, begin + first, made


def as_gguf(
    files: ModelFiles,
    shapes: Mapping[str, tuple[int, ...]],
    normal: Normal,
    io: CheckpointIO,
    outtype: str | None = None,
) -> GGUFContent:
    """What a GGUF file has of a model. No weight is read.

    Args:
        files: The language model, not quantized.
        shapes: Canonical name → shape of all tensors.
        normal: See `Normal`.
        io: Reader of untrusted files.
        outtype: One of `OUTTYPES`; by default 16 bits, as the model has them.

    Raises:
        ModelError: for a model that GGUF has no place for, naming what.
    """
    sixteen = _SIXTEEN[files.config["dtype"]]
    kind, number = OUTTYPES[sixteen.lower() if outtype is None else outtype]
    block = normal(files.config["model"])
    content, left_out = _tokenizer_and_more(files, block, io)
    content["general.file_type"] = number
    content["general.quantization_version"] = 2
    refused: ModelError | None = None
    for name in _candidates(files, block):
        architecture = ARCHITECTURES[name]
        try:
            metadata = model_metadata(name, architecture, block) | content
            metadata = {key: _in_32_bits(value) for key, value in metadata.items()}
            factors = rope_tensors(architecture, block)
            names = written_names(shapes.keys(), architecture, block)
            tensors = _headers(names, shapes, kind, sixteen)
            tensors |= {key: Header("F32", (len(one),)) for key, one in factors.items()}
            read = interpret(GGUFModel([_Written(Path("GGUF"), metadata, tensors, factors)]))
            _check_same(name, block, normal(read.block))
        except ModelError as error:
            refused = refused or error
            continue
        assert read.names.keys() == shapes.keys()
        if not _follows_window(architecture, block):
            left_out = [*left_out, f"the window, which llama.cpp does not follow in {name}"]
        return GGUFContent(metadata, tensors, left_out, read, factors)
    assert refused is not None
    reason = f"cannot be written: {refused.subject} {refused.reason}"
    raise ModelError(files.name, reason, INSTEAD)


def _candidates(files: ModelFiles, block: Mapping[str, JSON]) -> list[str]:
    """The architectures that a model may be written as, the first that fits being taken.

    One that says what it is, is written as that is, or as a LLaMA if it does nothing otherwise.
    """
    own = files.config.get("source", {}).get("model_type")
    if own is None:
        return [name for name, one in ARCHITECTURES.items() if _follows_window(one, block)]
    return [*(name for name, one in ARCHITECTURES.items() if own in one.types), "llama"]


def _follows_window(architecture: Architecture, block: Mapping[str, JSON]) -> bool:
    """Whether llama.cpp does, or there is none."""
    layers = architecture.window_layers
    return block.get("sliding_window") is None or layers in (None, block["num_layers"])


def _tokenizer_and_more(
    files: ModelFiles, block: Mapping[str, JSON], io: CheckpointIO
) -> tuple[dict[str, GGUFValue], list[str]]:
    vocab_size = block["vocab_size"]
    assert isinstance(vocab_size, int)
    tokenizer, ends = tokenizer_metadata(files, vocab_size, io)
    listed = tokenizer["tokenizer.ggml.tokens"]
    assert isinstance(listed, list)
    sampling, settings = sampling_metadata(files.config["generation"])
    general: dict[str, GGUFValue] = {"general.type": "model"}
    name = os.fsencode(Path(files.name).name).decode(errors="replace")
    # llama.cpp takes it that a model of this name has these tokens.
    if not re.search("phi-?3", name.lower()) or set(listed).issuperset((*PHI3_PLAIN, "</s>")):
        general["general.name"] = name
    return general | sampling | tokenizer, [*ends, *settings]


def _headers(
    names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], kind: str, sixteen: str
) -> dict[str, Header]:
    """GGUF's name → type and shape; what several tensors are stored in is as high as all of them."""
    heights: dict[str, int] = {}
    experts: dict[str, int] = {}
    for name, key in names.items():
        heights[key] = heights.get(key, 0) + shapes[name][0]
        number = name.partition(".experts.")[2].partition(".")[0]
        if number:
            experts[key] = max(experts.get(key, 0), int(number) + 1)
    found: dict[str, Header] = {}
    for name, key in names.items():
        shape: tuple[int, ...] = (heights[key], *shapes[name][1:])
        if key in experts:
            shape = (experts[key], heights[key] // experts[key], *shape[1:])
        if ".shared_gate." in name:
            shape = shape[1:]
        dtype = "F32"
        if len(shape) > 1 and is_linear(name):
            dtype = sixteen if kind == "Q8_0" and shape[-1] % _BLOCK else kind
        found[key] = Header(dtype, shape)
    return found


def _check_same(name: str, block: Mapping[str, JSON], read: Mapping[str, JSON]) -> None:
    """Refuse a model that would be read as another one."""
    both = [dict(one, rope_scaling=rope_meaning(one)) for one in (block, read)]
    for key in sorted({*both[0], *both[1]}):
        ours, theirs = (one.get(key) for one in both)
        if not _is_same(ours, theirs):
            raise ModelError(f"GGUF's {name}", f"has no place for {key} {shown(ours)}")


def _is_same(one: object, other: object) -> bool:
    """Whether two values are the same to what float32 tells."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if is_number(one) and is_number(other):
        return isclose(one, other, rel_tol=1e-6 if isinstance(one, float) else 0)
    return one == other


def _in_32_bits(value: GGUFValue) -> GGUFValue:
    return _as_float32(value) if isinstance(value, float) else value


def _as_float32(value: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found


def _stored(rows: Tensor, dtype: str, name: str) -> Tensor:
    """Rows of numbers as the type has them."""
    if dtype == "BF16":
        return rows.bfloat16()
    if dtype == "F32":
        return rows.float()
    # Scales of Q8_0 are float16.
    is_reached = rows.abs().max() <= _MOST_HALF * (127 if dtype == "Q8_0" else 1)
    if not is_reached:
        reason = f"tensor {shown(name)} has numbers that {dtype} does not have"
        raise ModelError("GGUF", reason, 'choose `outtype="bf16"`')
    return q8_0_blocks(rows) if dtype == "Q8_0" else rows.half()
