"""What the last round is trained on: features of pictures, made once, and dialogues about these pictures.

Both are made by processes of their own: a GPU takes a batch faster than one process makes it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lolama_vision import CLIPImageProcessor

from ..text.tokenizer import control_id
from .batches import IGNORE, targets_of
from .model import VISION, fresh_model, load_weights
from .questions import ask
from .recipe import LastRecipe
from .scene import Scene, draw, scene_of
from .tokenizer import IMAGE, DialogueEncoder

WIDTH = 232
"""Positions of every row. All batches have one shape, as a recorded step wants it."""
_AT_ONCE = 50


@dataclass(frozen=True)
class Rows:
    """Dialogues after the merge, right-padded to WIDTH, as arrays: processes hand these on by themselves.

    Attributes:
        ids: (B, WIDTH), 0 where there is none.
        features: (B, WIDTH), which of the picture's features is there, or -1.
        targets: (B, WIDTH), what follows each position, or IGNORE.
        pictures: (B,), which picture each is about.
    """

    ids: NDArray[np.int64]
    features: NDArray[np.int64]
    targets: NDArray[np.int64]
    pictures: NDArray[np.int64]


class Maker:
    """Makes features and rows: the same in whichever process.

    Args:
        checkpoint: The model after the rounds before; its encoder and projector stay as they are.
        recipe: The recipe of the last round.
    """

    def __init__(self, checkpoint: Path, recipe: LastRecipe) -> None:
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._encoder = DialogueEncoder(tokenizer)
        self._model = fresh_model(control_id(tokenizer, IMAGE)).eval()
        load_weights(self._model, checkpoint)
        self._processor = CLIPImageProcessor(VISION)
        self._recipe = recipe
        self._scene = cache(_scene)

    @torch.inference_mode()
    def features(self, pictures: range) -> NDArray[np.float16]:
        """(N, P, D), projected."""
        drawn = [draw(self._scene(number), random.Random(f"0 {number}")) for number in pictures]
        pixels = self._processor.preprocess(drawn)["pixel_values"]
        made: NDArray[np.float16] = (
            self._model.projector(self._model.vision_tower(pixels)).half().numpy()
        )
        return made

    def rows(self, step: int) -> Rows:
        """The batch of that step."""
        count, patches = self._recipe.dialogues, VISION.features_per_tile
        ids = np.zeros((count, WIDTH), np.int64)
        features = np.full((count, WIDTH), -1)
        targets = np.full((count, WIDTH), IGNORE)
        pictures = np.zeros(count, np.int64)
        for row in range(count):
            pictures[row], tokens, wanted, start = self._row(random.Random(f"find {step} {row}"))
            rest = tokens[start + 1 :]
            ids[row, :start] = tokens[:start]
            ids[row, start + patches : start + patches + len(rest)] = rest
            features[row, start : start + patches] = np.arange(patches)
            targets[row, : len(wanted)] = wanted
        return Rows(ids, features, targets, pictures)

    def _row(self, rng: random.Random) -> tuple[int, list[int], list[int], int]:
        """A picture, ids of a dialogue about it, their targets, and where the picture is."""
        recipe = self._recipe
        picture = rng.randrange(recipe.pictures)
        rng.random()  # Decides nothing: so dialogues are those that the shipped weights were trained on.
        exchanges = ask(
            self._scene(picture),
            rng,
            recipe.questions,
            described_first=recipe.described_first,
            finding=rng.choice(recipe.finding),
        )
        plain = rng.random() < recipe.plain
        while True:
            ids, ours = self._encoder.encode(exchanges, plain=plain)
            if len(ids) - 1 + VISION.features_per_tile <= WIDTH:
                start = ids.index(self._encoder.ids[IMAGE])
                return picture, ids, targets_of(ids, ours, start), start
            exchanges = exchanges[:-1]


@contextmanager
def made(
    checkpoint: Path, recipe: LastRecipe, workers: int
) -> Iterator[tuple[torch.Tensor, Iterator[Rows]]]:
    """(pictures, P, D) float16 features, and the batches one after the other, from ``workers`` processes."""
    with get_context("spawn").Pool(workers, _start, (checkpoint, recipe)) as pool:
        spans = [
            range(first, min(first + _AT_ONCE, recipe.pictures))
            for first in range(0, recipe.pictures, _AT_ONCE)
        ]
        features = torch.cat([torch.from_numpy(part) for part in pool.imap(_features, spans)])
        yield features, _ahead(pool, recipe.steps, 4 * workers)


def _ahead(pool: Pool, steps: int, count: int) -> Iterator[Rows]:
    """The batches in order; ``count`` of them are made before they are asked for."""
    coming = deque(pool.apply_async(_rows, (step,)) for step in range(min(count, steps)))
    following = iter(range(len(coming), steps))
    while coming:
        yield coming.popleft().get()
        coming.extend(pool.apply_async(_rows, (step,)) for step in islice(following, 1))


def _scene(number: int) -> Scene:
    return scene_of(random.Random(f"find {number}"), held_out=False)


_maker: Maker | None = None


def _start(checkpoint: Path, recipe: LastRecipe) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = Maker(checkpoint, recipe)


def _features(pictures: range) -> NDArray[np.float16]:
    assert _maker is not None
    return _maker.features(pictures)


def _rows(step: int) -> Rows:
    assert _maker is not None
    return _maker.rows(step)
