"""A language model that is a module of torch.

`lolama_core.protocols` does not import it, since it does without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lolama_core.protocols.model import CausalLM

if TYPE_CHECKING:
    from torch import Tensor


class CausalLMModule(nn.Module, CausalLM):
    """What loading a model returns: a `CausalLM` that can be called, moved, looked into and trained.

    Families build subclasses of it. Generation asks for no more than a `CausalLM`.

    Attributes:
        layers: The blocks of the language model.
    """

    if TYPE_CHECKING:
        # A subclass has them as its own submodule, or finds them in one: nothing is inherited at run time.
        @property
        def layers(self) -> nn.ModuleList:
            """The blocks of the language model."""
            ...

        def __call__(self, input_ids: Tensor, *args: Any, **inputs: Any) -> Tensor:
            """(B, T) token ids → logits (B, T, V), as ``forward`` does."""
            ...
