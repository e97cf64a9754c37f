"""Whether a model is still what it was: everything that the forwards of its modules depend on.

`lolama_core.protocols` does not import it, since it does without torch.
"""

from __future__ import annotations

import sys
import weakref
from types import FunctionType

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_NUMBERS = (int, float, str, type(None))  # of which bool is one
# What torch itself keeps in every module. A look takes hooks, parameters and modules from elsewhere, and the
# rest changes only the forward of a module in training.
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_DECORATORS = frozenset({"contextlib", "torch.utils._contextlib"})


class Look:
    """What a module and all inside it looked like. Two looks are equal if no forward can tell them apart.

    Seen are: which modules and tensors there are and in which order, their classes, the functions of each
    class and those that an object has itself, hooks of modules and of all modules, numbers such as epsilons;
    of tensors the version, dtype, shape, strides, device and the memory they are in. Not seen are writes
    through ``tensor.data`` or from outside torch, which leave no trace, and what a forward reads from
    elsewhere.

    It keeps neither modules nor tensors alive.
    """

    def __init__(self, *roots: nn.Module) -> None:
        values: list[object] = [*global_hooks()]
        objects: list[weakref.ref[object]] = []
        kinds: set[type[nn.Module]] = set()
        for root in roots:
            for module in root.modules():
                kind = type(module)
                if kind not in kinds:
                    kinds.add(kind)
                    values += functions_of(kind).values()
                    # A base class may have these.
                    values += kind.forward, kind.__call__
                objects.append(weakref.ref(module))
                values += _of_module(module)
                for tensor in (*module._parameters.values(), *module._buffers.values()):
                    if tensor is not None:
                        objects.append(weakref.ref(tensor))
                        values += _of_tensor(tensor)
        # An address may be given to another object once the first is gone; a weak reference may not.
        self._values, self._objects = values, objects

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Look):
            return NotImplemented
        return len(self._objects) == len(other._objects) and (
            all(
                mine() is theirs()
                for mine, theirs in zip(self._objects, other._objects, strict=True)
            )
            and self._values == other._values
        )

    def __reduce__(self) -> tuple[type[Look], tuple[()]]:
        return Look, ()  # a copied or unpickled model has other modules: it was never looked at

    __hash__ = None  # type: ignore[assignment]  # what it saw may end


def global_hooks() -> list[object]:
    """The hooks that torch calls around the forward of every module."""
    return [
        *torch_module._global_forward_hooks.values(),
        *torch_module._global_forward_pre_hooks.values(),
    ]


def functions_of(kind: type[nn.Module]) -> dict[str, object]:
    """The functions that a class defines itself, which somebody may replace; not those that Python adds."""
    return {
        name: value
        for name, value in vars(kind).items()
        if isinstance(value, FunctionType) and (name == "__call__" or not name.startswith("__"))
    }


def has_own_functions(kind: type[nn.Module]) -> bool:
    """Whether the functions of a class are those in its source, and nobody's in their place."""
    home = vars(sys.modules[kind.__module__])
    return all(
        isinstance(function, FunctionType)
        and function.__globals__ is home
        and function.__code__.co_qualname == f"{kind.__qualname__}.{name}"
        for name, function in ((n, _undecorated(f)) for n, f in functions_of(kind).items())
    )


def _undecorated(function: object) -> object:
    """A function without decorators of Python and torch. Those of others may be no part of the source."""
    while isinstance(function, FunctionType) and function.__globals__["__name__"] in _DECORATORS:
        function = vars(function).get("__wrapped__")
    return function


def is_as_written(module: nn.Module) -> bool:
    """Whether calling it runs the functions of its class alone: no hook, none of its own, not compiled."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return not hooked and not functions_in_place(module)


def functions_in_place(module: nn.Module) -> list[str]:
    """The functions of its class that a module itself has others for; compiled code is one of them."""
    kind = type(module)
    return [name for name, value in vars(module).items() if callable(value) and hasattr(kind, name)]


def _of_module(module: nn.Module) -> list[object]:
    seen: list[object] = [
        type(module),
        *module._forward_hooks.values(),
        *module._forward_pre_hooks.values(),
        *module._modules,
        *module._parameters,
    ]
    for name, value in vars(module).items():
        if name not in _OF_TORCH and (isinstance(value, _NUMBERS) or callable(value)):
            seen.append(value)
    return seen


def _of_tensor(tensor: Tensor) -> list[object]:
    # Tensors of inference mode count no changes; nothing that trains has them.
    version = 0 if tensor.is_inference() else tensor._version
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # it has no memory of its own
        address = 0
    return [version, address, tensor.dtype, tensor.shape, tensor.stride(), tensor.device]
