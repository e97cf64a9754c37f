"""Swapping linears and embeddings for grouped ones: which, with what, and the tensors of a saved model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.grouped import FORMATS
from lolama_core.protocols.quantizer import QuantizationReport, QuantizationScheme
from lolama_quant.grouped.codes import pack
from lolama_quant.grouped.linear import GroupedEmbedding, GroupedLinear, GroupedWeight
from lolama_quant.int4.least_squares import quantize_rows
from lolama_quant.int8.absmax import quantize_weight
from lolama_quant.int8.linear import Int8Linear
from lolama_quant.layers import check_found, check_version, covers, dense_linears, swap

VERSION = 1
"""The version of the layout that a saved model of grouped weights has."""

DEFAULT = "int4"
INT8 = "int8"
"""Besides `FORMATS`: a scale for each output channel."""


@torch.inference_mode(False)  # parameters made in inference mode could not be moved outside of it
def quantize_(module: nn.Module, scheme: QuantizationScheme) -> QuantizationReport:
    """Replace layers inside ``module`` in place, without calibration; see `Quantizer.quantize_`."""
    formats = formats_of(module, scheme)
    layers = {name: module.get_submodule(name) for name in formats}
    weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
    before = {id(weight): weight.nbytes for weight in weights.values()}
    # All of them before the first is swapped: a weight that is refused leaves the module as it was.
    made: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, form in formats.items():
        key = id(weights[name]), form
        if key not in made:
            made[key] = quantized_tensors(name, weights[name].detach(), form)
    shared: dict[tuple[int, str], nn.Module] = {}
    for name, form in formats.items():
        key = id(weights[name]), form
        layer = _empty(layers[name], form, scheme.name)
        if key in shared:
            _share(layer, shared[key])
        else:
            shared[key] = layer
            for part, tensor in made[key].items():
                setattr(layer, part, nn.Parameter(tensor, requires_grad=False))
        swap(module, name, layer)
    after = sum(tensor.nbytes for tensors in made.values() for tensor in tensors.values())
    return QuantizationReport(
        scheme=scheme,
        replaced=tuple(formats),
        bytes_before=sum(before.values()),
        bytes_after=after,
    )


def prepare_(module: nn.Module, scheme: QuantizationScheme) -> None:
    """Give a module on the meta device the layout of a quantized one; see `Quantizer.prepare_`."""
    formats = formats_of(module, scheme)
    layers = {name: module.get_submodule(name) for name in formats}
    shared: dict[tuple[int, str], nn.Module] = {}
    for name, form in formats.items():
        made = _empty(layers[name], form, scheme.name)
        key = id(layers[name].weight), form
        if key in shared:
            _share(made, shared[key])
        else:
            shared[key] = made
        swap(module, name, made)


def declared(module: nn.Module) -> dict[str, str]:
    """The tensors of a prepared module whose dtype is fixed → that dtype, as safetensors spells it."""
    fixed = {}
    for name, layer in quantized_layers(module).items():
        if isinstance(layer, Int8Linear):
            fixed[f"{name}.weight"], fixed[f"{name}.scale"] = "I8", "F32"
            continue
        size = len(layer.weight), layer.inputs
        for part, (dtype, _) in layer.form.tensors(*size).items():
            fixed[f"{name}.{part}"] = dtype
    return fixed


def converted(
    module: nn.Module, tensors: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dense model as those of ``module``, which is prepared: one at a time.

    Raises:
        ModelError: naming the weight, if one holds NaN or Inf, or numbers beyond what the format has.
    """
    layers = quantized_layers(module)
    for name, tensor in tensors:
        path, _, leaf = name.rpartition(".")
        if path not in layers or leaf != "weight":
            yield name, tensor
            continue
        layer = layers[path]
        form = INT8 if isinstance(layer, Int8Linear) else layer.form.name
        for part, made in quantized_tensors(path, tensor, form).items():
            yield f"{path}.{part}", made


def quantized_tensors(name: str, weight: Tensor, form: str) -> dict[str, Tensor]:
    """The tensors of a weight (N, K) in a format, by the last parts of their names.

    Raises:
        ModelError: for a format that is only read from files; naming the weight, if it is not finite.
    """
    if form == INT8:
        values, scale = quantize_weight(weight, f"{name}.weight")
        return {"weight": values, "scale": scale}
    if form != DEFAULT:
        reason = f"asks for {form!r} of {name}, which is read from files alone"
        raise ModelError("quantization", reason, f"choose {DEFAULT} or {INT8}")
    return pack(quantize_rows(weight, f"{name}.weight"), FORMATS[form])


def formats_of(module: nn.Module, scheme: QuantizationScheme) -> dict[str, str]:
    """Name → format, of all layers that ``scheme`` quantizes: linears, and embeddings that it names.

    A linear that is tied to such an embedding stays so, unless it has a format of its own or is skipped.

    Raises:
        ModelError: for another version of the layout, or a scheme that does not fit the module.
        UsageError: if the module is quantized already, or has nothing to quantize.
    """
    check_version(scheme.version, VERSION, scheme.name)
    if scheme.outlier_columns:
        reason = f"has outlier columns, which {scheme.name} does not know"
        raise ModelError("quantization", reason, "quantize the model again")
    found = dict.fromkeys(dense_linears(module, scheme.skipped), DEFAULT)
    check_found([*found, *scheme.formats], bool(quantized_layers(module)))
    for key, form in scheme.formats.items():
        if form != INT8 and form not in FORMATS:
            known = ", ".join((INT8, *FORMATS))
            reason = f"asks for the format {form!r:.40} of {key!r:.80}; known are {known}"
            raise ModelError("quantization", reason, "upgrade lolama-quant")
        names = [name for name, layer in module.named_modules() if _takes(layer, form, key, name)]
        if not names:
            reason = f"asks for {form!r} of {key!r:.80}, which this model does not have"
            raise ModelError("quantization", reason, "quantize the model again")
        found |= dict.fromkeys(names, form)
    tied = {
        id(layer.weight): found[name]
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Embedding) and name in found
    }
    also = {
        name: tied[id(layer.weight)]
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and id(layer.weight) in tied
        and not any(covers(one, name) for one in scheme.skipped)
    }
    return also | found


def scheme_of(module: nn.Module) -> QuantizationScheme | None:
    """How ``module`` is quantized, told from its layers; None if it is not."""
    layers = quantized_layers(module)
    if not layers:
        return None
    dense = tuple(name for name, layer in module.named_modules() if isinstance(layer, nn.Linear))
    forms = {
        name: INT8 if isinstance(layer, Int8Linear) else layer.form.name
        for name, layer in layers.items()
    }
    names = {layer.scheme for layer in layers.values() if isinstance(layer, GroupedWeight)}
    if names:
        return QuantizationScheme(name=names.pop(), skipped=dense, formats=forms)
    outliers = {
        name: tuple(layer.outlier_columns.tolist())
        for name, layer in layers.items()
        if isinstance(layer, Int8Linear) and layer.outlier_columns is not None
    }
    return QuantizationScheme(name=INT8, skipped=dense, outlier_columns=outliers)


def quantized_layers(module: nn.Module) -> dict[str, Int8Linear | GroupedWeight]:
    """Name → layer, for what is quantized inside ``module``."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, Int8Linear | GroupedWeight)
    }


def _takes(layer: nn.Module, form: str, key: str, name: str) -> bool:
    """Whether a layer of this name is meant, and can have the format."""
    kinds = (nn.Linear,) if form == INT8 else (nn.Linear, nn.Embedding)
    return isinstance(layer, kinds) and (name == key or name.endswith(f".{key}"))


def _empty(layer: nn.Module, form: str, scheme: str) -> nn.Module:
    """A layer without numbers in the place of a dense one, with its bias."""
    made: Int8Linear | GroupedLinear | GroupedEmbedding
    if isinstance(layer, nn.Embedding):
        size = layer.num_embeddings, layer.embedding_dim
        made = GroupedEmbedding(*size, form, dtype=layer.weight.dtype, device="meta")
        made.scheme = scheme
        return made.train(layer.training)
    assert isinstance(layer, nn.Linear)
    if form == INT8:
        made = Int8Linear(layer.in_features, layer.out_features, device="meta")
    else:
        made = GroupedLinear(layer.in_features, layer.out_features, form, device="meta")
        made.scheme = scheme
    if layer.bias is not None:
        # Before loading the very same, should two layers share it.
        made.bias = (
            layer.bias
            if layer.bias.is_meta
            else nn.Parameter(layer.bias.detach(), requires_grad=False)
        )
    return made.train(layer.training)


def _share(layer: nn.Module, other: nn.Module) -> None:
    """Let ``layer`` have the very tensors of ``other``, as tied weights are."""
    for name, parameter in other.named_parameters():
        if name != "bias":
            setattr(layer, name, parameter)
