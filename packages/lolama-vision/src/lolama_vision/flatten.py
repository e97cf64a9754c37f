"""Any picture that Pillow opens → upright, three channels of eight bits.

| what the file holds | what becomes of it |
|---|---|
| EXIF orientation | turned upright; damaged EXIF is ignored |
| transparency (RGBA, LA, PA, premultiplied, a transparent color) | laid on white |
| CMYK, YCbCr, Lab, palette, gray, 1-bit | converted by Pillow; embedded color profiles are ignored |
| 16-bit gray (I;16, or I with values from 0 to 65535) | divided by 257, rounded |
| a transparent color among 16-bit RGB | refused: Pillow reads the upper 8 bits, which do not tell it |
| 32-bit integers outside that range, floating point | refused: nothing says what is white |
"""

from __future__ import annotations

from PIL import Image, ImageFile

from lolama_core.protocols.errors import ModelError

_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
_EIGHT_OF_SIXTEEN_BITS = [(value + 128) // 257 for value in range(1 << 16)]


def flatten(image: Image.Image) -> Image.Image:
    """Bring ``image`` into mode RGB, without metadata: flattened again, it stays as it is.

    Raises:
        ModelError: for values that have no scale, or a picture that cannot be decoded.
    """
    try:
        _scale_transparent_color(image)
        flat = _to_rgb(_upright(image))
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = f"cannot be decoded ({type(error).__name__}): it is damaged or cut short"
        raise ModelError("image", reason, "get the file again") from error
    flat.info = {}  # the orientation that was followed would turn it a second time
    return flat


def _scale_transparent_color(image: Image.Image) -> None:
    """Pillow brings samples of a PNG to eight bits, and leaves the color that is transparent as it was."""
    raw_mode = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
    color = image.info.get("transparency")
    if color is None:
        return
    if raw_mode == "RGB;16B":
        reason = "declares one of 16-bit colors transparent, which 8 bits cannot tell from others"
        raise ModelError("image", reason, "save it with 8 bits a channel, or an alpha channel")
    levels = {"L;2": 3, "L;4": 15}.get(str(raw_mode))
    if levels is not None:
        image.info["transparency"] = (color & levels) * (255 // levels)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        reason = "holds floating-point values, and nothing says which of them is white"
        raise ModelError("image", reason, "save it with 8 or 16 bits a channel")
    if image.mode in _WIDE:
        image = _from_sixteen_bits(image)
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata is no reason to refuse a picture
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image.transpose(turn) if turn is not None else image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """The picture in mode L, or in LA if one of its values is transparent."""
    wide = image if image.mode == "I" else image.convert("I")
    low, high = wide.getextrema()
    if not (isinstance(low, int | float) and low >= 0 and high <= 65535):  # type: ignore[operator]
        reason = f"holds values from {low} to {high}, and nothing says which of them is white"
        raise ModelError("image", reason, "save it with 8 or 16 bits a channel")
    gray = wide.point(_EIGHT_OF_SIXTEEN_BITS, "L")
    transparent = image.info.get("transparency")
    if transparent is None:
        return gray
    opacity = [0 if value == transparent else 255 for value in range(1 << 16)]
    return Image.merge("LA", (gray, wide.point(opacity, "L")))
