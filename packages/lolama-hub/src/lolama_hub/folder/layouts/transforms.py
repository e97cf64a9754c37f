"""How a canonical tensor is made of a published one that is not stored as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.layouts.layout import TextLayout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Published tensor → canonical one.

    Args:
        key: The published name.
        expert: Which expert it is of, and how many the tensor has; None if it has no others.
        rows: First and last of its rows, and how many it has; None for all.
        head: The order in which the dimensions of each head become canonical; None if they are.
        offset: What is added to it, in float32.
        transposed: Whether its rows become columns.
    """

    key: str
    expert: tuple[int, int] | None = None
    rows: tuple[int, int, int] | None = None
    head: tuple[int, ...] | None = None
    offset: int = 0
    transposed: bool = False

    def __call__(self, tensor: Tensor) -> Tensor:
        """A tensor with memory of its own.

        Raises:
            ModelError: if it has another number of experts or rows.
        """
        if self.expert is not None:
            place, count = self.expert
            self._check(tensor, count, "experts")
            tensor = tensor[place] if self.rows is not None else tensor[place].clone()
        if self.rows is not None:
            first, last, whole = self.rows
            self._check(tensor, whole, "rows")
            tensor = tensor[first:last].clone()
        if self.transposed:
            tensor = tensor.T.contiguous()
        if self.head is not None:
            width = len(self.head)
            if tensor.dim() == 0 or tensor.shape[0] % width:
                found = tensor.shape[0] if tensor.dim() else 0
                raise self._refuse(f"has {found} rows, expected heads of {width}")
            tensor = tensor.unflatten(0, (-1, len(self.head)))[:, list(self.head)].flatten(0, 1)  # type: ignore[no-untyped-call]
        return tensor.float() + self.offset if self.offset else tensor

    def inverse(self, tensor: Tensor) -> Tensor:
        """The rows of a canonical tensor as they are published; no offset is taken off."""
        if self.head is None:
            return tensor
        places = sorted(range(len(self.head)), key=self.head.__getitem__)
        rows: Tensor = tensor.unflatten(0, (-1, len(places)))[:, places].flatten(0, 1)  # type: ignore[no-untyped-call]
        return rows

    def first_row(self, height: int) -> int:
        """Where its ``height`` rows begin in the published tensor, whose experts stand one below another."""
        first, _, whole = self.rows or (0, 0, height)
        return first if self.expert is None else self.expert[0] * whole + first

    def _check(self, tensor: Tensor, count: int, what: str) -> None:
        found = tensor.shape[0] if tensor.dim() else 0
        if found != count:
            raise self._refuse(f"has {found} {what}, expected {count}")

    def _refuse(self, reason: str) -> ModelError:
        remedy = "the weights and the configuration must be of the same model"
        return ModelError(self.key, reason, remedy)


def transforms(
    layout: TextLayout, model: Mapping[str, JSON], names: Mapping[str, str]
) -> dict[str, Transform]:
    """Canonical name → how it is made, for the tensors that are not stored as they are.

    Args:
        layout: How the architecture is published.
        model: The canonical ``model`` block.
        names: Canonical name → published name of all tensors.
    """
    parts: dict[tuple[str, int | None], list[str]] = {}
    experts: dict[str, set[int]] = {}
    for name, key in names.items():
        expert = _expert(name)
        parts.setdefault((key, expert), []).append(name)
        if expert is not None:
            experts.setdefault(key, set()).add(expert)
    head = _head_order(model, layout.interleaved)
    made = {}
    for name, key in names.items():
        part, expert = name.rsplit(".", 2)[-2], _expert(name)
        fused = expert is not None and f".experts.{expert}." not in key
        own = Transform(
            key,
            (expert, len(experts[key])) if expert is not None and fused else None,
            _rows(name, parts[key, expert], model),
            head if part in ("q_proj", "k_proj") else None,
            layout.norm_offset if "norm" in part else 0,
        )
        if own != Transform(key):
            made[name] = own
    return made


def _expert(name: str) -> int | None:
    """The number of the expert whose tensor this is; None if it is of none."""
    number = name.partition(".experts.")[2].partition(".")[0]
    return int(number) if number else None


def _rows(
    name: str, together: Sequence[str], model: Mapping[str, JSON]
) -> tuple[int, int, int] | None:
    """The rows of a tensor that several share, in the order of ``together``."""
    if len(together) == 1 or "lm_head.weight" in together:
        return None
    counts = [_height(each, model) for each in together]
    first = sum(counts[: together.index(name)])
    return first, first + _height(name, model), sum(counts)


def _height(name: str, model: Mapping[str, JSON]) -> int:
    part = name.rsplit(".", 2)[-2]
    heads = {"q_proj": "num_heads"}.get(part, "num_kv_heads")
    hidden = model["hidden_dim" if _expert(name) is None else "expert_dim"]
    number, width = model[heads], model["head_dim"]
    assert isinstance(hidden, int) and isinstance(number, int) and isinstance(width, int)
    return hidden if part.startswith("w_") else number * width


def _head_order(model: Mapping[str, JSON], interleaved: bool) -> tuple[int, ...] | None:
    """Published place of each dimension of a head; None where all of them are in their places.

    The first ``rotary_dim`` dimensions of a head are rotated. They make pairs of their two halves, or of
    neighbors. Canonical pairs are of the two halves of the whole head, and those that keep still come last.
    """
    width = model["head_dim"]
    rotary = model.get("rotary_dim", width)
    assert isinstance(width, int) and isinstance(rotary, int)
    places = list(range(rotary))
    first, second = places[: rotary // 2], places[rotary // 2 :]
    if interleaved:
        first, second = places[::2], places[1::2]
    middle = (width + rotary) // 2
    order = (*first, *range(rotary, middle), *second, *range(middle, width))
    return None if order == tuple(range(width)) else order
