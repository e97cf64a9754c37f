"""What every `ImageProcessor` must do."""

from __future__ import annotations

import pytest

from lolama_core.protocols import ImageProcessor


class ImageProcessorSuite:
    """Subclass it and define the fixture ``processor``."""

    @pytest.fixture
    def processor(self) -> ImageProcessor:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def test_one_picture_or_several(self, processor: ImageProcessor) -> None:
        """Fields agree with each other, and a list is its pictures one after the other."""
        from PIL import Image

        pictures = [Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 50), "blue")]
        both = processor.preprocess(pictures)
        assert both["pixel_values"].dim() == 4
        assert both["pixel_values"].shape[0] == sum(both["tiles_per_image"])
        assert len(both["image_sizes"]) == len(both["tokens_per_image"]) == 2
        first = processor.preprocess(pictures[0])
        tiles = first["tiles_per_image"][0]
        assert bool((both["pixel_values"][:tiles] == first["pixel_values"]).all())
