"""What an image processor hands on, checked: the tiles of each picture, and its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_core.protocols.errors import UsageError
from lolama_vision.config import VisionConfig
from lolama_vision.split import Size
from lolama_vision.tiles import count_tiles, is_whole


def split_pictures(
    config: VisionConfig,
    pixel_values: Tensor | None,
    tiles_per_image: Sequence[int] | None,
    image_sizes: Sequence[Size] | None,
) -> tuple[list[Tensor], list[Size]]:
    """The tiles of each picture, and each picture's size, once they agree with each other.

    Raises:
        UsageError: if they do not.
    """
    if pixel_values is None:
        return [], []
    side = config.image_size
    if pixel_values.dim() != 4 or pixel_values.shape[1:] != (3, side, side):
        raise UsageError(
            "pixel_values",
            f"has shape {tuple(pixel_values.shape)}, expected (tiles, 3, {side}, {side})",
            "use this model's image processor",
        )
    if image_sizes is None:
        if config.preprocessing.needs_sizes:
            reason = "is missing: this model takes pictures in tiles, laid out by their sizes"
            raise UsageError("image_sizes", reason, "hand on all that the processor returns")
        sizes = [(side, side)] * len(pixel_values)
    else:
        sizes = [(int(height), int(width)) for height, width in image_sizes]
    tiles = [count_tiles(size, config) for size in sizes]
    if tiles_per_image is not None and len(tiles_per_image) == len(tiles):
        tiles = [
            1 if is_whole(config, given) else count
            for given, count in zip(tiles_per_image, tiles, strict=True)
        ]
    remedy = "use this model's image processor"
    if tiles_per_image is not None and list(tiles_per_image) != tiles:
        reason = f"is {list(tiles_per_image)!s:.60}; pictures of these sizes have {tiles!s:.60}"
        raise UsageError("tiles_per_image", reason, remedy)
    if sum(tiles) != len(pixel_values):
        reason = f"holds {len(pixel_values)} tiles; pictures of these sizes have {tiles!s:.60}"
        raise UsageError("pixel_values", reason, remedy)
    return list(torch.split(pixel_values, tiles)), sizes
