"""A picture in characters: each shows two pixels, its upper half and its background."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDTH, _HEIGHT = 32, 24  # pixels: 32 columns and 12 lines
_UPPER_HALF = "▀"


def half_blocks(image: Image) -> str:
    """Lines of half blocks in 24-bit color, 32 columns wide and 12 lines high at most."""
    scale = min(_WIDTH / image.width, _HEIGHT / image.height)
    width = max(1, round(image.width * scale))
    height = max(2, 2 * round(image.height * scale / 2))
    small = image.convert("RGB").resize((width, height))
    pixels = small.tobytes()  # rows of RGB
    rows = [pixels[3 * width * y : 3 * width * (y + 1)] for y in range(height)]
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{_color(upper, x)};48;2;{_color(lower, x)}m{_UPPER_HALF}"
            for x in range(width)
        )
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


def _color(row: bytes, x: int) -> str:
    return ";".join(map(str, row[3 * x : 3 * x + 3]))
