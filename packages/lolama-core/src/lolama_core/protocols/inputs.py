"""What a model reads beside ids, and the refusal of what it does not."""

from __future__ import annotations

from collections.abc import Iterable

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import ImageInputs


def refuse_inputs(names: Iterable[str]) -> None:
    """Refuse whatever somebody gives a text model beside ids.

    Raises:
        UsageError: for the first of ``names``.
    """
    for name in names:
        if name in ImageInputs.__annotations__:
            remedy = "pictures need a vision model such as llava-1.5-7b"
            raise UsageError(name, "is no input of a text model", remedy)
        reason = "is neither a generation setting nor an input of a text model"
        raise UsageError(name, reason, "check its spelling")
