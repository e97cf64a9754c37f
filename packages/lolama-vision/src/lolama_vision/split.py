"""How Idefics3 and SmolVLM cut a picture: scaled to one size, then into as many tiles as that fills.

Everything here is arithmetic on sizes, (height, width) in pixels.
"""

from __future__ import annotations

import math

from lolama_vision.config import VisionConfig

Size = tuple[int, int]


def scaled(size: Size, config: VisionConfig) -> Size:
    """The size of a picture once its longer side is ``longest_edge``; the shorter one is even."""
    longest = config.preprocessing.longest_edge
    assert longest is not None
    height, width = size
    ratio = width / height
    if width >= height:
        width, height = longest, _even(int(longest / ratio))
    else:
        height, width = longest, _even(int(longest * ratio))
    return max(height, 1), max(width, 1)


def canvas(size: Size, config: VisionConfig) -> Size:
    """The size that a picture is stretched to, so that tiles fill it."""
    side = config.image_size
    height, width = scaled(size, config)
    ratio = width / height
    if width >= height:
        width = _filled(width, side)
        return _filled(int(width / ratio), side), width
    height = _filled(height, side)
    return height, _filled(int(height * ratio), side)


def split_grid(size: Size, config: VisionConfig) -> Size:
    """Rows and columns of tiles; none of a picture that is a single tile as a whole."""
    height, width = canvas(size, config)
    rows, columns = height // config.image_size, width // config.image_size
    return (rows, columns) if rows * columns > 1 else (0, 0)


def _even(length: int) -> int:
    return length + length % 2


def _filled(length: int, side: int) -> int:
    return math.ceil(length / side) * side
