"""Filling a model on the meta device with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lolama_core.files.checkpoint_config import declared_dtypes
from lolama_core.files.checkpoint_reader import dtype_name, is_finite
from lolama_core.protocols import Checkpoint
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.quantizer import set_output_dtype

REPLACE_MODEL = "the weights do not fit the configuration; replace the model"


def load_into(
    module: nn.Module,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    vector_dtype: torch.dtype | None = None,
) -> None:
    """Replace every parameter and persistent buffer of ``module`` by the checkpoint's tensor.

    Tensors arrive and are converted one by one, so the peak is the weights plus one tensor. Parameters
    that are one under several names (tied embeddings) stay one; the checkpoint may hold any of the names.

    After an error the module is half filled and must be thrown away.

    Args:
        module: The model, normally on the meta device. Buffers that are not saved (RoPE tables) are not
            touched: whoever built the module restores them.
        checkpoint: Where the weights come from.
        dtype: What floating-point weights become. Tensors declared in the configuration's
            ``quantization.tensors`` keep the dtype they have.
        device: Where they go.
        vector_dtype: What one-dimensional weights (norms, biases) become, if not ``dtype``.

    Raises:
        ModelError: naming the tensors that are missing, left over, of the wrong shape, of the wrong dtype,
            non-finite, or too large for ``dtype``. Names and shapes are compared before data are read
            wherever the files' headers tell them.

    Example:
        >>> with torch.device("meta"):
        ...     model = Llama(config)
        >>> load_into(model, FileCheckpoint(files), torch.bfloat16)
    """
    subject = checkpoint.name
    targets = _targets(module)
    _check_names(targets, checkpoint.names(), subject)
    for name, shape in checkpoint.shapes().items():
        _check_shape(name, shape, targets[name], subject)
    declared = declared_dtypes(checkpoint.config)
    filled: dict[int, Tensor] = {}
    for name, stored in checkpoint.tensors():
        target = targets[name]
        _check_shape(name, tuple(stored.shape), target, subject)
        if name in declared:
            _check_declared(name, stored, target, subject)
            value = stored.to(device)
        else:
            wanted = vector_dtype if vector_dtype is not None and stored.dim() == 1 else dtype
            value = stored.to(device=device, dtype=wanted)
            # The stored tensor was finite, so an infinity here comes from the conversion.
            if value.dtype != stored.dtype and not is_finite(value):
                reason = f"tensor {shown(name)} has values too large for {str(wanted)[6:]}"
                raise ModelError(subject, reason, "load it as bfloat16 or float32")
        if id(target) in filled:
            _check_tied(name, value, filled[id(target)], subject)
            continue
        same = [other for other, tensor in targets.items() if tensor is target]
        filled[id(target)] = _replace(module, same, target, value)
    assert not any(parameter.is_meta for parameter in module.parameters())
    set_output_dtype(module, dtype)


def _targets(module: nn.Module) -> dict[str, Tensor]:
    """Name → the very parameter or buffer; a tied one under each of its names."""
    return {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }


def _check_names(targets: dict[str, Tensor], names: frozenset[str], subject: str) -> None:
    served = {id(tensor) for name, tensor in targets.items() if name in names}
    lacking = {id(tensor): name for name, tensor in reversed(targets.items())}
    missing = [name for identity, name in lacking.items() if identity not in served]
    if missing:
        raise ModelError(subject, f"lacks {_listed(missing)}", REPLACE_MODEL)
    unexpected = names - targets.keys()
    if unexpected:
        raise ModelError(subject, f"holds unexpected {_listed(unexpected)}", REPLACE_MODEL)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    first = ", ".join(shown(name) for name in ordered[:3])
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{len(ordered)} tensor{'s' if len(ordered) > 1 else ''}: {first}{more}"


def _check_shape(name: str, shape: tuple[int, ...], target: Tensor, subject: str) -> None:
    expected = tuple(target.shape)
    if shape != expected:
        reason = f"tensor {shown(name)} has shape {shape}; the configuration asks for {expected}"
        raise ModelError(subject, reason, REPLACE_MODEL)


def _check_declared(name: str, stored: Tensor, target: Tensor, subject: str) -> None:
    if stored.dtype != target.dtype:
        found, expected = dtype_name(stored.dtype), dtype_name(target.dtype)
        reason = f"tensor {shown(name)} is {found}; this kind of quantization uses {expected}"
        raise ModelError(subject, reason, REPLACE_MODEL)


def _check_tied(name: str, value: Tensor, kept: Tensor, subject: str) -> None:
    if not torch.equal(value, kept):
        reason = f"tensor {shown(name)} differs from the one that the configuration ties it to"
        raise ModelError(
            subject, reason, "store one of the two, or untie them in the configuration"
        )


def _replace(module: nn.Module, names: list[str], target: Tensor, value: Tensor) -> Tensor:
    """Put ``value`` in the place of ``target`` under all its names."""
    if isinstance(target, nn.Parameter):
        value = nn.Parameter(value, requires_grad=target.requires_grad)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, value)
    return value
