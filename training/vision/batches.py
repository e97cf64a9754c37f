"""Pictures and dialogues about them, as tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lolama_vision import CLIPImageProcessor

from .model import VISION
from .questions import ask
from .reader import labels_of
from .recipe import Recipe
from .scene import draw, scene_of
from .tokenizer import IMAGE, DialogueEncoder

IGNORE = -100
"""A target that does not count."""


@dataclass(frozen=True)
class Batch:
    """Pictures and the dialogues about them, the shortest first.

    Attributes:
        pixel_values: (B, 3, S, S).
        labels: (B, P, kinds), what lies in the place of each patch.
        ids: (B, T), right-padded, one image token a row.
        targets: (B, T' - 1), after the merge: what follows each position, or IGNORE.
        lengths: Ids in use.
        starts: Where each row's picture begins, after the merge.
    """

    pixel_values: Tensor
    labels: Tensor
    ids: Tensor
    targets: Tensor
    lengths: list[int]
    starts: list[int]

    def split(self, parts: int) -> list[Batch]:
        """The batch in parts of whole rows."""
        rows = torch.arange(len(self.ids)).chunk(parts)
        return [
            Batch(
                self.pixel_values[row],
                self.labels[row],
                self.ids[row],
                self.targets[row],
                [self.lengths[index] for index in row.tolist()],
                [self.starts[index] for index in row.tolist()],
            )
            for row in rows
        ]


def targets_of(ids: Sequence[int], ours: Sequence[bool], start: int) -> list[int]:
    """What follows each position, or IGNORE, once the image token at ``start`` has become features."""
    answers = zip(ids[start + 1 :], ours[start + 1 :], strict=True)
    merged = [IGNORE] * (start + VISION.features_per_tile)
    return [*merged, *(i if mine else IGNORE for i, mine in answers)][1:]


def make_batch(
    encoder: DialogueEncoder, processor: CLIPImageProcessor, recipe: Recipe, step: int
) -> Batch:
    """The batch of that step: the same whenever and wherever it is made."""
    made = []
    for index in range(recipe.pictures):
        rng = random.Random(f"{recipe.seed} {step} {index}")
        empty = recipe.empty > 0 and rng.random() < recipe.empty
        scene = () if empty else scene_of(rng, held_out=False, most=recipe.most)
        picture = draw(scene, rng)
        exchanges = ask(
            scene,
            rng,
            recipe.questions,
            described_first=recipe.described_first,
            finding=recipe.finding,
        )
        ids, ours = encoder.encode(exchanges, plain=rng.random() < 0.15)
        start = ids.index(encoder.ids[IMAGE])
        made.append(
            (ids, start, targets_of(ids, ours, start), picture, labels_of(scene, VISION.grid))
        )
    made.sort(key=lambda row: len(row[0]))  # so that parts of a batch are padded less
    ids_of, starts, wanted, pictures, labels = zip(*made, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return Batch(
        processor.preprocess(list(pictures))["pixel_values"],
        torch.stack(labels),
        pad([torch.tensor(ids) for ids in ids_of], batch_first=True),
        pad([torch.tensor(w) for w in wanted], batch_first=True, padding_value=IGNORE),
        [len(ids) for ids in ids_of],
        list(starts),
    )
