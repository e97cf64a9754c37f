"""Pictures → the pixels that the encoder reads, bit for bit as transformers' PIL processors make them.

torch is imported once there are pixels: what a configuration or a file is refused for needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image

from lolama_core.protocols.checks import from_mapping
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import ImageInputs
from lolama_vision.config import VisionConfig
from lolama_vision.flatten import flatten
from lolama_vision.preprocessing import ImageMode
from lolama_vision.split import Size, canvas, scaled, split_grid
from lolama_vision.tiles import best_resolution, count_tiles, count_tokens, fitted_size

if TYPE_CHECKING:
    from torch import Tensor

_MOST_PIXELS = 200_000_000
"""The most pixels of a picture while it is resized or padded: 600 MB."""


class CLIPImageProcessor:
    """Resizes, crops, pads or tiles pictures, and normalizes them.

    Args:
        config: The encoder's configuration, with its preprocessing.

    Example:
        >>> processor = CLIPImageProcessor.from_config(model.config.vision_config)
        >>> inputs = processor.preprocess(Image.open("photo.jpg"))
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 336, 336])
    """

    def __init__(self, config: VisionConfig) -> None:
        self.config = config

    @classmethod
    def from_config(
        cls, config: VisionConfig | Mapping[str, object], *, mode: ImageMode | None = None
    ) -> CLIPImageProcessor:
        """The processor for a model's `VisionConfig`.

        Args:
            config: From ``model.config.vision_config``, or its fields.
            mode: ``crop`` or ``pad``, instead of what the model was trained with.

        Raises:
            UsageError: for another mode of a model that cuts pictures into tiles. LLaVA-OneVision takes
                ``pad``, too.
        """
        if isinstance(config, Mapping):
            config = from_mapping(VisionConfig, config, "vision_config", "lolama-vision")
        before = config.preprocessing
        if mode is not None and mode != before.mode:
            if before.max_tiles is not None and mode == "pad":
                before = replace(before, pinpoints=(), mode="pad")
            elif before.needs_sizes or mode in ("tiles", "split"):
                reason = f"this model takes pictures in mode {before.mode} only"
                raise UsageError("mode", f"{mode}: {reason}", "leave it out")
            config = replace(config, preprocessing=replace(before, mode=mode))
        return cls(config)

    def preprocess(self, image: Image.Image | Sequence[Image.Image]) -> ImageInputs:
        """One picture or several, in the order of their ``<image>``.

        Returns:
            ``pixel_values`` (tiles of all pictures, 3, S, S) float32, ``tiles_per_image``, ``image_sizes``
            as (height, width) in pixels, and ``tokens_per_image``.

        Raises:
            ModelError: for a picture that cannot be used.
        """
        from lolama_core.protocols.inference import ordinary

        images = [image] if isinstance(image, Image.Image) else list(image)
        return ordinary(lambda: self._preprocess(images))  # whoever trains needs ordinary pixels

    def _preprocess(self, images: list[Image.Image]) -> ImageInputs:
        import torch

        tiles: list[Tensor] = []
        sizes: list[Size] = []
        for one in images:
            flat = flatten(one)
            sizes.append((flat.height, flat.width))
            tiles += [self._normalized(tile) for tile in self._squares(flat)]
        size = (0, 3, self.config.image_size, self.config.image_size)
        return ImageInputs(
            pixel_values=torch.stack(tiles)
            if tiles
            else torch.empty(size, dtype=torch.float32, device="cpu"),
            tiles_per_image=[count_tiles(size, self.config) for size in sizes],
            image_sizes=sizes,
            tokens_per_image=[count_tokens(size, self.config) for size in sizes],
        )

    def _squares(self, image: Image.Image) -> list[Image.Image]:
        """The S × S pictures that are encoded."""
        mode = self.config.preprocessing.mode
        if mode == "tiles":
            return [self._square(part) for part in self._tiles(image)]
        if mode == "split":
            return self._split(image)
        if mode == "pad":
            image = self._padded(image)
        return [self._square(image)]

    def _tiles(self, image: Image.Image) -> list[Image.Image]:
        """The whole picture, pressed into a square, then tiles of it row by row."""
        side, edge = self.config.image_size, self._edge
        size = (image.height, image.width)
        resolution = best_resolution(size, self.config.preprocessing.pinpoints)
        fitted = fitted_size(size, resolution)
        canvas = Image.new("RGB", resolution[::-1])  # black
        place = ((resolution[1] - fitted[1]) // 2, (resolution[0] - fitted[0]) // 2)
        canvas.paste(self._resized(image, fitted), place)
        return [
            self._resized(image, (edge, edge)),
            *(
                canvas.crop((left, top, left + side, top + side))
                for top in range(0, resolution[0], side)
                for left in range(0, resolution[1], side)
            ),
        ]

    def _split(self, image: Image.Image) -> list[Image.Image]:
        """Tiles of the picture, row by row, then the whole of it, pressed into a square."""
        side, size = self.config.image_size, (image.height, image.width)
        image = self._resized(image, scaled(size, self.config))
        image = self._resized(image, canvas(size, self.config))
        rows, columns = split_grid(size, self.config)
        tiles = [
            image.crop((left, top, left + side, top + side))
            for top in range(0, rows * side, side)
            for left in range(0, columns * side, side)
        ]
        return [*tiles, self._resized(image, (side, side))]

    def _padded(self, image: Image.Image) -> Image.Image:
        """Made square by bars of the mean color."""
        if image.height == image.width:
            return image
        side = max(image.size)
        _check_pixels(image, side, side)
        color = tuple(int(mean * 255) for mean in self.config.preprocessing.mean)
        square = Image.new("RGB", (side, side), color)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def _square(self, image: Image.Image) -> Image.Image:
        """Resized, and the middle cut out; what the middle lacks is black."""
        side, edge = self.config.image_size, self._edge
        short, long = sorted(image.size)
        new_long = edge if self.config.preprocessing.stretch else int(edge * long / short)
        size = (new_long, edge) if image.width <= image.height else (edge, new_long)
        _check_pixels(image, *size)
        image = self._resized(image, size)
        left, top = ((length - side) // 2 for length in image.size)
        return image.crop((left, top, left + side, top + side))

    def _resized(self, image: Image.Image, size: Size) -> Image.Image:
        height, width = size
        return image.resize((width, height), Image.Resampling(self.config.preprocessing.resample))

    def _normalized(self, image: Image.Image) -> Tensor:
        """(3, S, S) float32."""
        import torch

        settings, side = self.config.preprocessing, self.config.image_size
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(side, side, 3).permute(2, 0, 1)
        scaled = (pixels.double() * settings.rescale_factor).float()
        mean, std = (
            torch.tensor(channels, dtype=torch.float32, device="cpu")[:, None, None]
            for channels in (settings.mean, settings.std)
        )
        return ((scaled - mean) / std).contiguous()

    @property
    def _edge(self) -> int:
        return self.config.preprocessing.shortest_edge or self.config.image_size


def _check_pixels(image: Image.Image, height: int, width: int) -> None:
    if height * width > _MOST_PIXELS:
        raise ModelError(
            "image",
            f"is {image.width} × {image.height} pixels, too long and thin to be resized",
            "cut it into parts",
        )
