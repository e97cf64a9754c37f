"""Pictures in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lolama_core.protocols.types import ImageInputs

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class ImageProcessor(Protocol):
    """Prepares pictures for one vision model."""

    def preprocess(self, image: Image | Sequence[Image]) -> ImageInputs:
        """Resize, crop or tile, and normalize one picture or several, in order.

        Raises:
            ModelError: for a picture that cannot be used.
        """
        ...
