"""The ``quantization`` block of a checkpoint, and who can load what it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from lolama_core.plugins import installed_quantizer
from lolama_core.protocols.checks import is_integer, shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.protocols.types import JSON, CanonicalConfig

if TYPE_CHECKING:
    from torch import nn


def quantization_block(scheme: QuantizationScheme, declared: Mapping[str, str]) -> dict[str, JSON]:
    """What a checkpoint's configuration says about its quantization.

    Args:
        scheme: How it is quantized.
        declared: Tensors whose dtype is fixed → that dtype, as safetensors spells it.
    """
    block: dict[str, JSON] = {
        "name": scheme.name,
        "version": scheme.version,
        "skipped": list(scheme.skipped),
        "outlier_columns": {name: list(some) for name, some in scheme.outlier_columns.items()},
        "tensors": dict(declared),
    }
    return block | ({"formats": dict(scheme.formats)} if scheme.formats else {})


def read_scheme(config: CanonicalConfig, subject: str) -> QuantizationScheme | None:
    """The scheme of a checkpoint; None if it is not quantized.

    Raises:
        ModelError: for a block that is anything but what `quantization_block` writes.
    """
    block = config.get("quantization")
    if block is None:
        return None
    name, version = block.get("name"), block.get("version")
    skipped, columns = block.get("skipped", []), block.get("outlier_columns", {})
    if not isinstance(name, str):
        raise _refuse(subject, "name", name, "a name")
    if not is_integer(version):
        raise _refuse(subject, "version", version, "a whole number")
    if not isinstance(skipped, list) or not all(isinstance(one, str) for one in skipped):
        raise _refuse(subject, "skipped", skipped, "a list of names")
    if not isinstance(columns, dict) or not all(map(_is_columns, columns.values())):
        expected = "an object of names and lists of whole numbers"
        raise _refuse(subject, "outlier_columns", columns, expected)
    formats = block.get("formats", {})
    if not isinstance(formats, dict) or not all(isinstance(one, str) for one in formats.values()):
        raise _refuse(subject, "formats", formats, "an object of names and formats")
    return QuantizationScheme(
        name=name,
        version=version,
        skipped=tuple(cast(list[str], skipped)),
        outlier_columns={
            name: tuple(cast(list[int], some)) for name, some in columns.items() if some
        },
        formats=cast(dict[str, str], formats),
    )


def prepare_quantized_(module: nn.Module, config: CanonicalConfig, subject: str) -> None:
    """Give an empty model the layout of its quantized checkpoint; nothing happens if it is not quantized.

    Raises:
        ModelError: for a block that cannot be used.
        NotAvailableError: if no installed package has its quantizer.
    """
    scheme = read_scheme(config, subject)
    if scheme is None:
        return
    installed_quantizer(scheme.name, subject).prepare_(module, scheme)


def _is_columns(value: JSON) -> bool:
    return isinstance(value, list) and all(map(is_integer, value))


def _refuse(subject: str, key: str, value: JSON, expected: str) -> ModelError:
    return ModelError(
        subject,
        f"quantization.{key} is {shown(value)}, expected {expected}",
        "quantize the model again",
    )
