"""What features are asked while the model is trained: what lies in each patch's place, and where that is.

A loss on words alone teaches an encoder slowly, since a whole question says one thing about one shape. This
says three or four things about every patch, without a language model between. The reader does not ship.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scene import COLOURS, PLACES, SHAPES, SIZES, Scene

KINDS = (SHAPES, tuple(COLOURS), SIZES, PLACES)
"""Asked of a patch; 0 stands for a place without a thing. Where it is, each patch knows."""


class Reader(nn.Module):
    """Shape, color, size and place of each patch, read off its projected feature.

    Args:
        width: The width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, sum(len(kind) + 1 for kind in KINDS))
        nn.init.normal_(self.heads.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.heads.bias)

    def forward(self, features: Tensor) -> list[Tensor]:
        """(B, P, D) → (B, P, number of classes) logits for each kind."""
        return list(self.heads(features).split([len(kind) + 1 for kind in KINDS], dim=-1))

    def loss(self, features: Tensor, labels: Tensor, *, places: bool) -> Tensor:
        """Summed cross-entropy of (B, P, D) features and (B, P, kinds) classes; of places only if asked."""
        losses = [
            F.cross_entropy(logits.flatten(0, 1), labels[..., index].flatten(), reduction="sum")
            for index, logits in enumerate(self(features))
            if places or KINDS[index] is not PLACES
        ]
        return torch.stack(losses).sum()


def labels_of(scene: Scene, grid: int) -> Tensor:
    """The classes of each patch, row by row: (grid², kinds)."""
    things = {thing.place: thing for thing in scene}
    places = torch.zeros(len(PLACES), len(KINDS), dtype=torch.long)
    for place, name in enumerate(PLACES):
        thing = things.get(place)
        values = (thing.shape, thing.colour, thing.size) if thing else (None, None, None)
        places[place] = torch.tensor(
            [
                0 if value is None else kind.index(value) + 1
                for kind, value in zip(KINDS, (*values, name), strict=True)
            ]
        )
    thirds = torch.arange(grid) * 3 // grid
    return places[(thirds[:, None] * 3 + thirds).flatten()]
