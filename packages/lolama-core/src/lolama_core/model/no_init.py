"""Modules whose parameters nobody initializes, because a checkpoint will replace them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class NoInit(TorchFunctionMode):
    """Inside this context the functions of ``torch.nn.init`` do nothing.

    On the meta device there is nothing to fill, but torch takes ``normal_`` there through its Python
    decompositions, and with the first one imports its compiler: over a second, for no number at all.

    Example:
        >>> with torch.device("meta"), NoInit():
        ...     model = Llama(config)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Hand the tensor back as it is for an initializer; call anything else."""
        named = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)
