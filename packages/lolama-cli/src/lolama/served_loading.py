"""How the models of a server are loaded, and what is told of them before they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from lolama import memory, names
from lolama_core.protocols.types import JSON, ModelFiles


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How models of a server are loaded; see `lolama.load`.

    Attributes:
        bits: 8 or 4 for quantized weights; 0 as they are.
        device, dtype: Where, and as what.
        cache_dtype: What keys and values are stored in.
        template: Source of a chat template in the place of the model's own.
        draft: What tries tokens ahead: ``auto``, ``lookup``, ``off``, or the name of a model.
        thinking: Whether they think before they reply, where a request does not say; None for the default of
            their templates, and for those that have no switch.
    """

    bits: int = 0
    device: str | None = None
    dtype: str | None = None
    cache_dtype: Literal["int8"] | None = None
    template: str | None = None
    draft: str = "auto"
    thinking: bool | None = None


def facts_of(files: ModelFiles) -> dict[str, JSON]:
    """What is told of a model without loading it."""
    paths = sorted({str(location.path.name) for location in files.tensors.values()})
    scheme = files.config.get("quantization", {}).get("name")
    return {
        "family": files.family,
        "parameters": memory.parameters(files),
        "bytes": sum(path.stat().st_size for path in {one.path for one in files.tensors.values()}),
        "dtype": files.config["dtype"],
        "scheme": scheme,
        "context_length": names.context_length(files),
        "files": cast("list[JSON]", paths),
        "vision": names.text_shape(files) is not files.config["model"],
    }
