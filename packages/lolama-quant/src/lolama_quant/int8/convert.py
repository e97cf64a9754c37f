"""Swapping the linears of a module for int8 ones: which, with what, and the tensors of a saved model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.quantizer import QuantizationReport, QuantizationScheme
from lolama_quant.int8.absmax import Int8Rows, quantize_weight
from lolama_quant.int8.linear import Int8Linear
from lolama_quant.layers import check_found, check_version, dense_linears, swap

VERSION = 1
"""The version of the layout that a saved int8 model has."""


@torch.inference_mode(False)  # parameters made in inference mode could not be moved outside of it
def quantize_(module: nn.Module, scheme: QuantizationScheme) -> QuantizationReport:
    """Replace linears inside ``module`` in place; see `Int8Quantizer.quantize_`."""
    linears = linears_of(module, scheme)
    columns = _columns_of(linears, scheme)
    for name, linear in linears.items():
        # Before the first is swapped: a weight that is refused leaves the module as it was.
        _check_finite(linear.weight, f"{name}.weight")
    before = {id(linear.weight): linear.weight.nbytes for linear in linears.values()}
    shared: dict[tuple[int, tuple[int, ...]], Int8Linear] = {}
    for name, linear in linears.items():
        key = (id(linear.weight), columns[name])
        if key in shared:
            tied = shared[key]
            made = Int8Linear.from_dense(linear, Int8Rows(tied.weight, tied.scale), columns[name])
            made.weight, made.scale = tied.weight, tied.scale
            made.outlier_weight = tied.outlier_weight
        else:
            quantized = quantize_weight(without_columns(linear.weight, columns[name]), name)
            made = shared[key] = Int8Linear.from_dense(linear, quantized, columns[name])
        swap(module, name, made)
    after = sum(
        parameter.nbytes
        for made in shared.values()
        for name, parameter in made.named_parameters()
        if name != "bias"
    )
    return QuantizationReport(
        scheme=scheme,
        replaced=tuple(linears),
        bytes_before=sum(before.values()),
        bytes_after=after,
    )


def prepare_(module: nn.Module, scheme: QuantizationScheme) -> None:
    """Give a module on the meta device the layout of a quantized one; see `Int8Quantizer.prepare_`."""
    linears = linears_of(module, scheme)
    columns = _columns_of(linears, scheme)
    shared: dict[tuple[int, tuple[int, ...]], Int8Linear] = {}
    for name, linear in linears.items():
        made = Int8Linear(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            outlier_columns=columns[name],
            dtype=linear.weight.dtype,
            device="meta",
        )
        if linear.bias is not None:
            made.bias = linear.bias  # the very same, should two layers share it
        tied = shared.setdefault((id(linear.weight), columns[name]), made)
        made.weight, made.scale, made.outlier_weight = tied.weight, tied.scale, tied.outlier_weight
        swap(module, name, made.train(linear.training))


def declared(module: nn.Module) -> dict[str, str]:
    """The tensors of a prepared module whose dtype is fixed → that dtype, as safetensors spells it."""
    fixed = {}
    for name in int8_linears(module):
        fixed[f"{name}.weight"], fixed[f"{name}.scale"] = "I8", "F32"
    return fixed


def converted(
    module: nn.Module, tensors: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dense model as those of ``module``, which is prepared: one at a time.

    Raises:
        ModelError: naming the weight, if one holds NaN or Inf.
    """
    layers = int8_linears(module)
    for name, tensor in tensors:
        path, _, leaf = name.rpartition(".")
        if path not in layers or leaf != "weight":
            yield name, tensor
            continue
        layer = layers[path]
        columns = () if layer.outlier_columns is None else tuple(layer.outlier_columns.tolist())
        quantized = quantize_weight(without_columns(tensor, columns), name)
        yield name, quantized.values
        yield f"{path}.scale", quantized.scale
        if columns:
            yield f"{path}.outlier_weight", tensor[:, list(columns)]


def linears_of(module: nn.Module, scheme: QuantizationScheme) -> dict[str, nn.Linear]:
    """Name → linear, for those that ``scheme`` quantizes.

    See `layers.dense_linears`. An embedding keeps its precision, and so does an ``lm_head`` tied to it.

    Raises:
        ModelError: for another version of the layout.
        UsageError: if the module is quantized already, or has no linear to quantize.
    """
    check_version(scheme.version, VERSION, "int8")
    found = dense_linears(module, scheme.skipped)
    check_found(found, bool(int8_linears(module)))
    return found


def int8_linears(module: nn.Module) -> dict[str, Int8Linear]:
    """Name → layer, for what is quantized inside ``module``."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Int8Linear)}


def without_columns(weight: Tensor, columns: Sequence[int]) -> Tensor:
    """(N, K) with zeros in these columns; they are kept beside it."""
    weight = weight.detach()
    return (
        weight.index_fill(1, torch.tensor(columns, device=weight.device), 0) if columns else weight
    )


def _columns_of(
    linears: Mapping[str, nn.Linear], scheme: QuantizationScheme
) -> dict[str, tuple[int, ...]]:
    """Outlier columns by linear, checked: a scheme may come out of a file."""
    for name, columns in scheme.outlier_columns.items():
        inputs = linears[name].in_features if name in linears else 0
        if sorted(set(columns)) != list(columns) or not all(0 <= one < inputs for one in columns):
            reason = (
                f"names outlier columns of {name!r:.80}, which has {inputs} inputs, that are not "
                "different, ascending and inside it"
            )
            raise ModelError("quantization", reason, "quantize the model again")
    return {name: tuple(scheme.outlier_columns.get(name, ())) for name in linears}


def _check_finite(weight: Tensor, name: str) -> None:
    ends = torch.stack(torch.aminmax(weight.detach())) if weight.numel() else weight
    if not bool(ends.isfinite().all()):
        quantize_weight(weight.detach(), name)  # which names the row
