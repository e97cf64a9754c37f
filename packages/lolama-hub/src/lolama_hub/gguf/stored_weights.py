"""The tensors of a GGUF file → those of a lolama checkpoint, and what is said of how they are quantized.

A weight in blocks becomes the tensors of the grouped format that has the same values. Where there is no such
format (Q5_1, Q5_K) its values are rounded to bfloat16. What is no weight of a linear or an embedding,
such as a router of experts, has them as float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.grouped import FORMATS
from lolama_core.protocols.types import JSON, TensorLocation
from lolama_hub.folder.fields import shown
from lolama_hub.folder.layouts.transforms import Transform
from lolama_hub.folder.weight_names import DTYPES
from lolama_hub.gguf.block_types import BLOCKS
from lolama_hub.gguf.blocks import dequantized, grouped
from lolama_hub.gguf.metadata import GGUFModel

if TYPE_CHECKING:
    from torch import Tensor

QUANTIZATION = "gguf"
"""The quantizer that builds a model with such weights, as the block ``quantization`` names it."""

_ROUNDED = "bfloat16"
_EMBEDDING = "embed_tokens"
_SHARED_GATE = "shared_gate"


@dataclass(frozen=True)
class Stored:
    """A stored tensor → a canonical one, or a part of it.

    Args:
        kind: The type of its blocks; empty for one that has none.
        part: ``weight``, ``group_scale`` or ``block_scale`` of a grouped format; else the dtype that the
            values get.
        moved: Which rows it is of, and in which order. Rows are moved as they are stored.
        row: Whether it is stored without the first of two dimensions, which is 1.
    """

    kind: str
    part: str
    moved: Transform | None = None
    row: bool = False

    def __call__(self, tensor: Tensor) -> Tensor:
        """A tensor with memory of its own.

        Raises:
            ModelError: if it has another number of experts or rows.
        """
        import torch

        if self.row:
            tensor = tensor[None]
        if self.moved is not None:
            tensor = self.moved(tensor)
        if not self.kind:
            return tensor
        kind = BLOCKS[self.kind]
        if self.part in DTYPES.values():
            return dequantized(kind, tensor).to(getattr(torch, self.part))
        return grouped(kind, tensor, self.part)


@dataclass(frozen=True)
class StoredWeights:
    """All tensors of a model.

    Attributes:
        locations: Canonical name → where it is, and how it is made.
        dtype: What most weights have that are not grouped.
        quantization: The checkpoint's block of that name; None where nothing is grouped.
    """

    locations: dict[str, TensorLocation]
    dtype: str
    quantization: dict[str, JSON] | None


def read_weights(
    model: GGUFModel, names: Mapping[str, str], moved: Mapping[str, Transform]
) -> StoredWeights:
    """Where each canonical tensor is.

    Args:
        model: What the files say.
        names: Canonical name → GGUF's name.
        moved: Canonical name → which rows it is of, and in which order, if not all as they are stored.

    Raises:
        ModelError: naming a type of blocks that is not read.
    """
    _refuse_types(model, names)
    locations: dict[str, TensorLocation] = {}
    formats: dict[str, JSON] = {}
    skipped: list[JSON] = []
    declared: dict[str, JSON] = {}
    counts = dict.fromkeys(DTYPES.values(), 0)
    for name, key in names.items():
        found, path = model.tensors[key], model.headers[key].path
        kind = BLOCKS.get(found.dtype)
        rank = 2 if (made := moved.get(name)) is None or made.expert is None else 3
        row = f".{_SHARED_GATE}." in name and len(found.shape) == 1
        owner, linear = name.removesuffix(".weight"), is_linear(name)
        if linear and len(found.shape) != rank:
            reason = f"tensor {shown(key)} has shape {found.shape}, expected {rank} dimensions"
            raise ModelError(str(path), reason, "get another conversion of the model")
        if kind is not None and kind.grouped and linear:
            inputs = found.shape[-1]
            for part, (dtype, _) in FORMATS[kind.grouped].tensors(1, inputs).items():
                locations[f"{owner}.{part}"] = TensorLocation(
                    path=path, key=key, transform=Stored(kind.name, part, made)
                )
                declared[f"{owner}.{part}"] = dtype
            formats[owner] = kind.grouped
            continue
        dtype = DTYPES.get(found.dtype, _ROUNDED if linear else "float32")
        transform: Stored | Transform | None = made
        if kind is not None or row:
            transform = Stored(kind.name if kind else "", dtype, made, row)
        locations[name] = TensorLocation(path=path, key=key, transform=transform)
        if linear:
            counts[dtype] += 1
            if owner != _EMBEDDING:
                skipped.append(owner)
    dtype = max(counts, key=lambda one: counts[one]) if any(counts.values()) else _ROUNDED
    if not formats:
        return StoredWeights(locations, dtype, None)
    block: dict[str, JSON] = {
        "name": QUANTIZATION,
        "version": 1,
        "skipped": skipped,
        "formats": formats,
        "outlier_columns": {},
        "tensors": declared,
    }
    return StoredWeights(locations, dtype, block)


def is_linear(name: str) -> bool:
    """Whether this is the weight of a linear or of the embedding, which may be grouped."""
    part = name.rsplit(".", 2)[-2]
    return name.endswith(".weight") and "norm" not in part and part not in ("router", _SHARED_GATE)


def _refuse_types(model: GGUFModel, names: Mapping[str, str]) -> None:
    known = [*DTYPES, *BLOCKS]
    others = sorted({model.tensors[key].dtype for key in names.values()}.difference(known))
    if others:
        of_them = (key for key in names.values() if model.tensors[key].dtype == others[0])
        raise ModelError(
            str(model.path),
            f"has tensors of {', '.join(others)}, such as {shown(next(of_them))}; lolama reads "
            f"{', '.join(known)}",
            "get the file of the same model whose name has Q4_K_M, Q6_K or Q8_0",
        )
