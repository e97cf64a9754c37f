"""The "anyres" of LLaVA-NeXT and LLaVA-OneVision: a picture as a whole, and in tiles that suit its shape.

Everything here is arithmetic on sizes, (height, width) in pixels, and on features that are laid out by
them. The processor, the merge and the count of positions before anything is loaded all rest on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lolama_vision.config import VisionConfig
from lolama_vision.split import Size, split_grid

if TYPE_CHECKING:
    from torch import Tensor


def best_resolution(size: Size, pinpoints: Sequence[Size]) -> Size:
    """The pinpoint that keeps most of the picture's pixels; of equals, the one that wastes least."""
    height, width = size

    def quality(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=quality)  # the first of equals, as the reference has it


def fitted_size(size: Size, resolution: Size) -> Size:
    """The picture's size once it is scaled into ``resolution``, proportions kept."""
    height, width = size
    by_width, by_height = resolution[1] / width, resolution[0] / height
    if by_width < by_height:
        return min(math.ceil(height * by_width), resolution[0]), resolution[1]
    return resolution[0], min(math.ceil(width * by_height), resolution[1])


def unpadded(size: Size, grid: Size) -> Size:
    """How many rows and columns of patches are left of ``grid`` without those that are padding alone."""
    (height, width), (rows, columns) = size, grid
    if width / height > columns / rows:
        kept = int(round(height * (columns / width), 7))
        return rows - 2 * ((rows - kept) // 2), columns
    kept = int(round(width * (rows / height), 7))
    return rows, columns - 2 * ((columns - kept) // 2)


def scaled_down(kept: Size, config: VisionConfig) -> Size:
    """Rows and columns of patches once those of more than ``max_tiles`` tiles are scaled down."""
    most = config.preprocessing.max_tiles
    if most is None:
        return kept
    ratio = math.sqrt(kept[0] * kept[1] / (most * config.grid**2))
    # The reference leaves a tenth more as it is.
    return kept if ratio <= 1.1 else (int(kept[0] // ratio), int(kept[1] // ratio))


def tile_grid(size: Size, config: VisionConfig) -> Size:
    """Rows and columns of tiles that a picture is cut into."""
    height, width = best_resolution(size, config.preprocessing.pinpoints)
    return height // config.image_size, width // config.image_size


def count_tiles(size: Size, config: VisionConfig) -> int:
    """Squares that a picture of this size is encoded as."""
    mode = config.preprocessing.mode
    if mode not in ("tiles", "split"):
        return 1
    rows, columns = split_grid(size, config) if mode == "split" else tile_grid(size, config)
    return 1 + rows * columns


def is_whole(config: VisionConfig, tiles: int) -> bool:
    """Whether a picture is one square to a model that otherwise takes tiles (LLaVA-OneVision, mode ``pad``).

    That is how it was trained with several pictures. A single row ends after all of the picture.
    """
    return config.preprocessing.max_tiles is not None and tiles == 1


def count_tokens(size: Size, config: VisionConfig, tiles: int | None = None) -> int:
    """Positions that a picture takes in a prompt.

    Args:
        size: Its size.
        config: The encoder's configuration.
        tiles: The squares that it is encoded as, if that is known; see `is_whole`.
    """
    marks = config.preprocessing.marks
    if marks is not None:
        pieces = marks.between(*split_grid(size, config))
        return count_tiles(size, config) * config.tokens_per_tile + sum(map(len, pieces))
    if is_whole(config, count_tiles(size, config) if tiles is None else tiles):
        return config.tokens_per_tile + 1
    if config.preprocessing.mode != "tiles":
        return config.tokens_per_tile
    rows, columns = tile_grid(size, config)
    kept = unpadded(size, (rows * config.grid, columns * config.grid))
    height, width = scaled_down(kept, config)
    return config.features_per_tile + height * (width + 1)


def arrange(features: Tensor, newline: Tensor, size: Size, config: VisionConfig) -> Tensor:
    """Features of the tiles of one picture in reading order.

    A picture that is one tile alone ends with ``newline``. Of others, those of the whole picture come first;
    then those of all tiles as one large grid, row by row, without rows and columns of padding and no larger
    than ``max_tiles`` allows, each row ended by ``newline``.

    Args:
        features: (1 + tiles, P, D).
        newline: (D,).
        size: The size of the picture.
        config: The encoder's configuration.

    Returns:
        (tokens, D).
    """
    import torch

    if len(features) == 1:
        return torch.cat((features[0], newline.to(features.dtype)[None]))
    whole, tiles = features[0], features[1:, int(config.keep_class_token) :]
    (rows, columns), side = tile_grid(size, config), config.grid
    width = tiles.shape[-1]
    grid = tiles.view(rows, columns, side, side, width).transpose(1, 2)  # (rows, side, columns, …)
    grid = grid.reshape(rows * side, columns * side, width)
    kept = unpadded(size, (rows * side, columns * side))
    top, left = (rows * side - kept[0]) // 2, (columns * side - kept[1]) // 2
    grid = grid[top : top + kept[0], left : left + kept[1]]
    smaller = scaled_down(kept, config)
    if smaller != kept:
        channels_first = grid.permute(2, 0, 1)[None]
        scaled = torch.nn.functional.interpolate(channels_first, smaller, mode="bilinear")
        grid = scaled[0].permute(1, 2, 0)
    ends = newline.to(grid.dtype).expand(len(grid), 1, -1)
    return torch.cat((whole, torch.cat((grid, ends), dim=1).flatten(0, 1)))
