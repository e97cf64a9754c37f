"""Which model this is, as another process can tell: what its keys and values depend on, in a few letters."""

from __future__ import annotations

import hashlib
from dataclasses import is_dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.look import global_hooks, has_own_functions, is_as_written
from lolama_core.protocols.types import GenerationDefaults, ModelFiles

_NUMBERS = (int, float, str)  # of which bool is one
_OF_TORCH = vars(nn.Module()).keys()
# No power of two, so that a row of a weight falls into other columns when it changes places with another.
_COLUMNS = 509


def model_identity(model: CausalLM) -> str:
    """A digest of a model as it is now: the same for the same model in any process, on any device.

    It covers the names and classes of modules, their numbers and configurations, and of each parameter and
    buffer the name, dtype, shape and values. Each weight is read once, which takes as long as a step does.
    Kernels do not count, since they only round differently.

    Raises:
        UsageError: if nobody could tell it from another one: with hooks, replaced functions or compiled code,
            or if it is no module of torch.
    """
    if not isinstance(model, nn.Module):
        raise _unknown("the model is no torch.nn.Module")
    if global_hooks():
        raise _unknown("hooks watch all modules")
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if not is_as_written(module) or not all(map(has_own_functions, _classes(module))):
            raise _unknown(
                f"{name or 'the model'} has a hook, a function of its own or compiled code"
            )
        numbers = sorted(
            (key, repr(value)) for key, value in vars(module).items() if _is_number(key, value)
        )
        digest.update(repr((name, type(module).__qualname__, numbers)).encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(sums_of(tensor))
    return digest.hexdigest()


def sums_of(tensor: Tensor) -> bytes:
    """A digest of values, at the speed of memory. It is no protection from somebody who wants to forge it."""
    whole = tensor.detach().resolve_neg().contiguous()
    # The stride of one value alone may be anything.
    flat = whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)
    rows = flat.numel() // (8 * _COLUMNS)
    words, rest = flat.tensor_split([rows * 8 * _COLUMNS])
    if words.storage_offset() % 8:  # a view of a larger tensor
        words = words.clone()
    sums = words.view(torch.int64).view(rows, _COLUMNS).sum(0).view(torch.uint8)
    return hashlib.sha256(bytes(torch.cat((sums, rest)).tolist())).digest()


def _classes(module: nn.Module) -> list[type[nn.Module]]:
    """Its class, and those that this stands on."""
    bases = type(module).__mro__
    return [base for base in bases if issubclass(base, nn.Module) and base is not nn.Module]


def _is_number(name: str, value: object) -> bool:
    """Whether a forward may read it, and another process could compare it."""
    if name in _OF_TORCH or isinstance(value, GenerationDefaults | ModelFiles):
        return False
    return isinstance(value, _NUMBERS) or is_dataclass(value)


def _unknown(reason: str) -> UsageError:
    what = f"cannot be told from another one: {reason}"
    return UsageError("model", what, "leave out the prompt cache")
