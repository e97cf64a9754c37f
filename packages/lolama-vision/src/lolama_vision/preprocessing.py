"""What is done to a picture before it is encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    from_mapping,
    is_integer,
    refused,
)
from lolama_vision.picture_marks import PictureMarks

ImageMode = Literal["crop", "pad", "tiles", "split"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_MOST_PIXELS_A_SIDE = 1 << 12
_MOST_PINPOINTS = 256


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to a picture before it is encoded; the defaults are those of LLaVA-1.5.

    Args:
        mode: ``crop``: the shorter side becomes ``shortest_edge``, then the middle is cut out (Hugging
            Face). ``pad``: made square with the mean color first, so nothing is cut away (the original
            LLaVA). ``tiles``: the whole picture, then pieces of it at a higher resolution (LLaVA-NeXT).
            ``split``: pieces of it, then the whole picture, with ids around each (Idefics3, SmolVLM).
        shortest_edge: Pixels. None: the size of the encoder's input.
        stretch: Resize both sides to ``shortest_edge``, whatever the proportions.
        mean, std: Mean and deviation of each channel, on a scale from 0 to 1.
        rescale_factor: The factor from stored values to that scale.
        resample: Pillow's number of the filter; 3 is bicubic.
        pinpoints: ``tiles``: (height, width) of the resolutions to choose from, in pixels.
        max_tiles: ``tiles``: features of more tiles than this are scaled down to about as many
            (LLaVA-OneVision); None for no limit. Such a model also takes pictures in mode ``pad``.
        longest_edge: ``split``: pixels that the longer side becomes before it is cut.
        marks: ``split``: the ids around tiles.
    """

    mode: ImageMode = "crop"
    shortest_edge: int | None = None
    stretch: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    rescale_factor: float = 1 / 255
    resample: int = 3
    pinpoints: tuple[tuple[int, int], ...] = ()
    max_tiles: int | None = None
    longest_edge: int | None = None
    marks: PictureMarks | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(ImageMode):
            raise refused("mode", self.mode, "crop, pad, tiles or split")
        if self.shortest_edge is not None:
            check_integer("shortest_edge", self.shortest_edge, _MOST_PIXELS_A_SIDE)
        check_boolean("stretch", self.stretch)
        for name, low in (("mean", -1e3), ("std", 1e-6)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise refused(name, values, "a number for each of three channels")
            checked = tuple(check_number(name, value, low, 1e3) for value in values)
            object.__setattr__(self, name, checked)
        check_number("rescale_factor", self.rescale_factor, 1e-9, 1e3)
        if not is_integer(self.resample, 0, 5):
            raise refused("resample", self.resample, "a filter from 0 to 5")
        object.__setattr__(self, "pinpoints", self._checked_pinpoints())
        if (self.mode == "tiles") != bool(self.pinpoints):
            raise refused(
                "pinpoints", list(self.pinpoints), "resolutions if mode is tiles, else none"
            )

        if self.max_tiles is not None:
            check_integer("max_tiles", self.max_tiles, _MOST_PINPOINTS)
        if isinstance(self.marks, Mapping):
            block = from_mapping(PictureMarks, self.marks, "marks", "lolama-vision")
            object.__setattr__(self, "marks", block)
        if not isinstance(self.marks, PictureMarks | None):
            raise refused("marks", self.marks, "an object")
        if self.longest_edge is not None:
            check_integer("longest_edge", self.longest_edge, _MOST_PIXELS_A_SIDE)
        for name in ("longest_edge", "marks"):
            if (self.mode == "split") != (getattr(self, name) is not None):
                raise refused(name, getattr(self, name), "a value if mode is split, else none")

    @property
    def needs_sizes(self) -> bool:
        """Whether the size of a picture decides how many squares it is encoded as."""
        return self.mode in ("tiles", "split")

    def most_tiles_a_side(self, image_size: int) -> int:
        """Rows or columns of ``split`` at most; the side that is not the longer one may be one pixel more."""
        longest = self.longest_edge or 0
        return math.ceil((longest + longest % 2) / image_size)

    def _checked_pinpoints(self) -> tuple[tuple[int, int], ...]:
        expected = f"at most {_MOST_PINPOINTS} pairs of height and width"
        if not isinstance(self.pinpoints, list | tuple) or len(self.pinpoints) > _MOST_PINPOINTS:
            raise refused("pinpoints", self.pinpoints, expected)
        for pair in self.pinpoints:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise refused("pinpoints", self.pinpoints, expected)
            for side in pair:
                check_integer("pinpoints", side, 1 << 14)
        return tuple((height, width) for height, width in self.pinpoints)
