"""What is done to a picture before it is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    is_integer,
    refused,
)

ImageMode = Literal["crop", "pad", "tiles"]

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
        shortest_edge: Pixels. None: the size of the encoder's input.
        stretch: Resize both sides to ``shortest_edge``, whatever the proportions.
        mean, std: Mean and deviation of each channel, on a scale from 0 to 1.
        rescale_factor: The factor from stored values to that scale.
        resample: Pillow's number of the filter; 3 is bicubic.
        pinpoints: ``tiles``: (height, width) of the resolutions to choose from, in pixels.
        max_tiles: ``tiles``: features of more tiles than this are scaled down to about as many
            (LLaVA-OneVision); None for no limit.
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

    def __post_init__(self) -> None:
        if self.mode not in get_args(ImageMode):
            raise refused("mode", self.mode, "crop, pad or tiles")
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
