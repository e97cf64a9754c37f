"""What a text may be: a grammar, or anything else that says which tokens may come next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@runtime_checkable
class Constraint(Protocol):
    """Allows some tokens at each place of one text. It belongs to that text alone.

    What it raises ends its own text, and no other.
    """

    def mask(self) -> Tensor | None:
        """Which tokens may come next, (V,) bool on the CPU; None for all.

        Ids past its end may not. An end token has to be allowed where the text may end. It is called in
        another thread while the model runs, and never beside another method.
        """
        ...

    def accept(self, token: int) -> None:
        """Learn which token was chosen, an end token included."""
        ...

    def rollback(self, count: int) -> None:
        """Forget the last ``count`` tokens."""
        ...


@runtime_checkable
class ForcingConstraint(Constraint, Protocol):
    """A constraint that knows some tokens before the model does, such as the names in a JSON schema.

    An engine runs these in one pass. Each is then chosen as any other token is: by the mask, the settings and
    the random numbers of its text. So a wrong one costs a little time, and changes no text.
    """

    def forced(self) -> Sequence[int]:
        """The tokens that come next whatever the model says, as far as they are known; maybe none."""
        ...
