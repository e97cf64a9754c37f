"""Scenes of one to four drawn shapes on a grid of nine places, and their pictures."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (214, 38, 38),
    "orange": (245, 140, 20),
    "yellow": (240, 215, 40),
    "green": (40, 160, 60),
    "blue": (35, 85, 215),
    "purple": (135, 50, 170),
    "black": (25, 25, 25),
}
SIZES = ("small", "large")
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("on the left", "in the centre", "on the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
BACKGROUNDS = ((255, 255, 255), (240, 240, 240), (250, 244, 228), (228, 240, 250), (232, 248, 232))
MOST = 4
HELD_OUT_SHARE = 10
"""One scene in this many is never trained on. Its parameters decide which."""


@dataclass(frozen=True, order=True)
class Thing:
    """A shape in one of the nine places, counted row by row."""

    place: int
    size: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def full_name(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def where(self) -> str:
        return PLACES[self.place]


Scene = tuple[Thing, ...]
"""The things in the order of their places. No two have the same color and shape."""


def make_scene(rng: random.Random, count: int) -> Scene:
    kinds: set[tuple[str, str]] = set()
    # Often two of a shape or color, so that neither alone tells which is meant.
    shapes = rng.sample(SHAPES, rng.randint(1, len(SHAPES)))
    colours = rng.sample(sorted(COLOURS), rng.randint(1, len(COLOURS)))
    while len(shapes) * len(colours) < count:
        colours = rng.sample(sorted(COLOURS), len(colours) + 1)
    while len(kinds) < count:
        kinds.add((rng.choice(colours), rng.choice(shapes)))
    places = rng.sample(range(len(PLACES)), count)
    return tuple(
        sorted(
            Thing(place, rng.choice(SIZES), colour, shape)
            for place, (colour, shape) in zip(places, sorted(kinds), strict=True)
        )
    )


def is_held_out(scene: Scene) -> bool:
    digest = hashlib.sha256(repr(sorted(scene)).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def scene_of(rng: random.Random, *, held_out: bool, most: int = MOST) -> Scene:
    """One of up to ``most`` things, seven at most."""
    while is_held_out(scene := make_scene(rng, rng.randint(1, most))) is not held_out:
        pass
    return scene


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """A square picture of random size; exact places, sizes and colors vary a little."""
    side = rng.choice((96, 128, 160, 192, 224))
    scale = 2  # drawn larger and reduced, for smooth edges
    full = side * scale
    background = tuple(min(255, c + rng.randint(-6, 6)) for c in rng.choice(BACKGROUNDS))
    picture = Image.new("RGB", (full, full), background)
    pen = ImageDraw.Draw(picture)
    cell = full / 3
    for thing in scene:
        large = thing.size == "large"
        radius = cell * (rng.uniform(0.38, 0.44) if large else rng.uniform(0.2, 0.25))
        slack = cell / 2 - radius - cell * 0.03
        x = (thing.place % 3 + 0.5) * cell + rng.uniform(-slack, slack)
        y = (thing.place // 3 + 0.5) * cell + rng.uniform(-slack, slack)
        colour = tuple(
            max(0, min(255, channel + rng.randint(-18, 18))) for channel in COLOURS[thing.colour]
        )
        _draw_shape(pen, thing.shape, x, y, radius, colour)
    return picture.resize((side, side), Image.Resampling.BOX)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: tuple[int, ...]
) -> None:
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "square":
        half = radius * 0.86
        pen.rectangle((x - half, y - half, x + half, y + half), fill=colour)
    else:
        corners = 3 if shape == "triangle" else 10
        points = []
        for corner in range(corners):
            angle = -math.pi / 2 + 2 * math.pi * corner / corners
            reach = radius * (0.42 if shape == "star" and corner % 2 else 1.0)
            points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        pen.polygon(points, fill=colour)
