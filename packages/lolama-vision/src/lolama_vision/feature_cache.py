"""Projected pictures, kept by their content: a chat asks about the same ones again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor

MAX_BYTES = 128 * 2**20
"""27 pictures of 576 positions in 4,096 dimensions of sixteen bits."""


class FeatureCache:
    """Keeps what was used last, up to a number of bytes.

    Args:
        max_bytes: The most bytes of features, on whatever device they are.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._features: OrderedDict[Hashable, Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is held."""
        return sum(features.nbytes for features in self._features.values())

    def get(self, key: Hashable) -> Tensor | None:
        """The features of a picture, if they are held."""
        features = self._features.get(key)
        if features is not None:
            self._features.move_to_end(key)
        return features

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep a picture's features; what was not used for the longest makes room."""
        if features.nbytes > self.max_bytes:
            return
        self._features[key] = features
        self._features.move_to_end(key)
        while self.nbytes > self.max_bytes:
            self._features.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._features.clear()
