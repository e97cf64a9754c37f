"""What neither Pillow nor libtiff looks at in a TIFF: whether all parts are there, and their checksums.

Source: TIFF 6.0 (Adobe 1992), sections 3 (strips) and 15 (tiles); Adobe Photoshop TIFF technical notes (2002)
for deflate.
"""

from __future__ import annotations

import zlib

from PIL.TiffImagePlugin import TiffImageFile

_COMPRESSION, _PLANAR = 259, 284
_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of the places and of the sizes of all strips or tiles."""

_DEFLATE = (8, 32946)
_SEPARATE_BANDS = 2
_PIECE = 1 << 20


def is_whole(image: TiffImageFile, data: bytes) -> bool:
    """Whether the parts of a picture that is not decoded yet cover it, and those that are deflated are whole.

    Args:
        image: Its first page, opened.
        data: The file.
    """
    if image.tag_v2.get(_COMPRESSION) in _DEFLATE:
        places, sizes = _STRIPS if _STRIPS[0] in image.tag_v2 else _TILES
        parts = zip(image.tag_v2[places], image.tag_v2[sizes], strict=True)
        return all(_is_whole_stream(data[place : place + size]) for place, size in parts)
    if image.tile[0].codec_name == "libtiff":
        return True  # it says so itself if a part is missing
    extents = [tile.extents for tile in image.tile if tile.extents is not None]
    covered = sum((right - left) * (low - top) for left, top, right, low in extents)
    layers = len(image.getbands()) if image.tag_v2.get(_PLANAR) == _SEPARATE_BANDS else 1
    return covered >= image.width * image.height * layers


def _is_whole_stream(packed: bytes) -> bool:
    inflate = zlib.decompressobj()
    try:
        while packed and not inflate.eof:
            inflate.decompress(packed, _PIECE)
            packed = inflate.unconsumed_tail
    except zlib.error:
        return False
    return inflate.eof
