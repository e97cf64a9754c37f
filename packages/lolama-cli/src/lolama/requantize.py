"""Models of GGUF files that are quantized in part: what of them has 16 bits still, and gets fewer on request.

Blocks that have a form here of equal values keep it. Others, such as Q5_K's, arrive as 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, cast

from lolama_core.protocols.quantizer import QuantizationScheme, Quantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lolama_core.protocols.types import ModelFiles

GGUF = "gguf"
"""What the block ``quantization`` of such a model calls itself."""

_EMBEDDING, _HEAD = "embed_tokens", "lm_head"


def formats_to_come(files: ModelFiles, bits: int, ends: Mapping[str, str]) -> dict[str, str]:
    """Name → format of the layers that have 16 bits and are to get fewer; empty if nothing is left to do.

    Args:
        files: The model.
        bits: 8, or 4.
        ends: Name → format of the embedding and of ``lm_head``, where they are quantized, too.
    """
    block = files.config.get("quantization", {})
    if block.get("name") != GGUF:
        return {}
    dense, formats = cast("list[str]", block["skipped"]), cast("dict[str, str]", block["formats"])
    inside = "int4" if bits == 4 else "int8"
    found = {name: inside for name in dense if name != _HEAD}
    has_plain_embedding = _EMBEDDING not in formats
    if _EMBEDDING in ends and has_plain_embedding:
        found[_EMBEDDING] = ends[_EMBEDDING]
    # One that is tied to the embedding is in neither list.
    if _HEAD in ends and (_HEAD in dense or (has_plain_embedding and _HEAD not in formats)):
        found[_HEAD] = ends[_HEAD]
    return found


def requantized_scheme(files: ModelFiles, new: dict[str, str]) -> QuantizationScheme:
    """How the model is quantized then.

    Args:
        files: The model.
        new: See `formats_to_come`.
    """
    block = files.config["quantization"]
    formats = cast("dict[str, str]", block["formats"])
    skipped = tuple(name for name in cast("list[str]", block["skipped"]) if name not in new)
    return QuantizationScheme(name=GGUF, skipped=skipped, formats=formats | new)


def with_what_is_made(
    files: ModelFiles,
    quantizer: Quantizer,
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
) -> Iterator[tuple[str, Tensor]]:
    """What ``quantizer`` makes of those tensors that are not quantized already, and the others."""
    made = cast("dict[str, str]", files.config.get("quantization", {}).get("tensors", {}))
    for is_made, some in groupby(tensors, key=lambda one: one[0] in made):
        if is_made:
            yield from some
        else:
            yield from quantizer.converted(module, some)


def about(files: ModelFiles, new: dict[str, str]) -> str:
    """A line that says what is done."""
    kept = len(cast("dict[str, str]", files.config["quantization"]["formats"]))
    return f"{files.name}: {kept:,} layers keep the values of the file, {len(new):,} of 16 bits get fewer"
