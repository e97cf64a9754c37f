"""Drawn pictures, as files."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def circle(color: str = "red", side: int = 160) -> Image.Image:
    """A large circle in the center of a white square."""
    picture = Image.new("RGB", (side, side), "white")
    radius, middle = side / 3 * 0.41, side / 2
    box = (middle - radius, middle - radius, middle + radius, middle + radius)
    ImageDraw.Draw(picture).ellipse(box, fill={"red": "#d62626", "blue": "#2355d7"}[color])
    return picture


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
