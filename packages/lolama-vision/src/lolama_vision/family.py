"""The model family ``llava``: a language model that is shown pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lolama_core.protocols.errors import NotAvailableError

if TYPE_CHECKING:
    from torch import nn

    from lolama_core.protocols.types import JSON


class LlavaFamily:
    """Names LLaVA checkpoints, and says that this version cannot build them.

    Registered under the entry point ``lolama.families``, so that a LLaVA checkpoint is refused by name and
    reason rather than as an unknown family.
    """

    name = "llava"

    @property
    def builtins(self) -> Mapping[str, Path]:
        """None ship with this version."""
        return {}

    def build(
        self, config: Mapping[str, JSON], build_text: Callable[[Mapping[str, JSON]], nn.Module]
    ) -> NoReturn:
        """Refuse.

        Raises:
            NotAvailableError: always.
        """
        raise self._not_yet("building a LLaVA model")

    def image_processor(self, config: Mapping[str, JSON]) -> NoReturn:
        """Refuse: None would claim that the model sees no pictures.

        Raises:
            NotAvailableError: always.
        """
        raise self._not_yet("preparing pictures")

    def _not_yet(self, what: str) -> NotAvailableError:
        return NotAvailableError(
            self.name,
            f"{what} is not in this version of lolama-vision",
            "use a text model, or upgrade lolama-vision once a version that sees is out",
        )
