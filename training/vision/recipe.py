"""How `demo-vision` is trained: the rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .scene import MOST


@dataclass(frozen=True)
class Recipe:
    """How much to train and how fast.

    Args:
        steps: Batches.
        pictures: The number of pictures in a batch, each of a new scene.
        questions: Asked about each picture. Without any, encoder and projector are trained alone.
        most: Things in a picture.
        described_first: Share of dialogues that begin with a description of the picture.
        empty: Share of pictures with nothing in them.
        finding: How many more questions of each kind ask where something is.
        reading: Weight of the reader's loss.
        places: Whether the reader is asked for places, too.
        position_scale: What the encoder's positions are multiplied with before the first step.
        peak_rate: Learning rate after the warm-up, of both optimizers.
        warmup: Share of the steps over which the rate rises.
        decay: Share of the steps, at the end, over which it falls to zero.
        seed: The seed of scenes, pictures and questions.
    """

    steps: int
    pictures: int
    questions: int
    most: int = MOST
    described_first: float = 0.1
    empty: float = 0.0
    finding: int = 0
    reading: float = 1.0
    places: bool = False
    position_scale: float = 1.0
    peak_rate: float = 3e-3
    warmup: float = 0.03
    decay: float = 1.0
    seed: str = "train 0"

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = (step + 1) / (self.warmup * self.steps)
        fall = (self.steps - step) / (self.decay * self.steps)
        return self.peak_rate * min(rise, fall, 1.0)


# First it learns to see, then to speak of what it sees, then to find what it is asked for. For that features
# have to say where they come from. After two rounds they hardly do: positions are a twentieth of what patches
# are, and get lost on the way.
ROUNDS = (
    Recipe(steps=1600, pictures=64, questions=0, most=7, seed="see 0"),
    Recipe(steps=2600, pictures=32, questions=7, empty=0.03, reading=0.2, decay=0.5),
    Recipe(
        steps=400,
        pictures=32,
        questions=7,
        empty=0.03,
        finding=6,
        places=True,
        position_scale=8.0,
        seed="find 0",
    ),
)


@dataclass(frozen=True)
class LastRecipe:
    """How the language model is trained alone, on features of pictures that are made once.

    Args:
        steps: Batches, at most.
        seconds: It ends after that, even so. The rate falls by whichever is nearer.
        pictures: The number of pictures whose features are made.
        dialogues: The number of dialogues in a batch, each about one of these pictures.
        questions: The most questions in a dialogue.
        described_first: Share of dialogues that begin with a description of the picture.
        finding: One of these is drawn for each dialogue; see `ask`.
        plain: Share of dialogues that begin without the control token of a question.
        peak_rate: Learning rate after the warm-up, of both optimizers.
        warmup: Steps over which the rate rises.
        decay: Share, at the end, over which it falls to zero.
    """

    steps: int
    pictures: int
    dialogues: int
    seconds: float = math.inf
    questions: int = 7
    described_first: float = 0.1
    finding: tuple[int, ...] = (0, 2, 6)
    plain: float = 0.15
    peak_rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.5

    def done(self, step: int, elapsed: float) -> float:
        """The share of the training that is done before ``step`` (from 0), after ``elapsed`` seconds."""
        return max(step / self.steps, elapsed / self.seconds)

    def rate(self, step: int, done: float) -> float:
        """The learning rate of a step."""
        return self.peak_rate * min((step + 1) / self.warmup, (1 - done) / self.decay, 1.0)


LAST = LastRecipe(steps=5641, pictures=9000, dialogues=160)
