"""Pictures among the embeddings of a prompt: where they stand, and their features in these places.

A prompt has one ``<image>`` for each picture, or a run of them that is as long as the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Prompt, PromptKey

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextSpan:
    """Ids of a row that stay as they are: those from ``start`` to ``stop``."""

    start: int
    stop: int


@dataclass(frozen=True)
class PicturePlace:
    """The place of a picture, by its number among all of the batch."""

    index: int


Piece = TextSpan | PicturePlace


def place_pictures(
    rows: Sequence[Sequence[int]], tokens_per_image: Sequence[int], image_token_id: int
) -> list[list[Piece]]:
    """Cut each row into stretches of text and pictures.

    Pictures are taken in order, row by row. All rows hold either one image token for each picture, as a
    person writes a prompt, or one for each position of it, as transformers' processors do.

    Args:
        rows: The ids of each row, without padding.
        tokens_per_image: Positions that each picture of the batch takes.
        image_token_id: The id that stands for a picture.

    Raises:
        UsageError: if image tokens and pictures do not go together, with both numbers.

    Example:
        >>> place_pictures([[1, 9, 5]], [576], image_token_id=9)
        [[TextSpan(start=0, stop=1), PicturePlace(index=0), TextSpan(start=2, stop=3)]]
    """
    marks = sum(list(row).count(image_token_id) for row in rows)
    pictures, positions = len(tokens_per_image), sum(tokens_per_image)
    if marks not in (pictures, positions):
        raise _mismatch(marks, pictures, positions)
    widths = list(tokens_per_image) if marks == positions else [1] * pictures
    placed, index = [], 0
    for row in rows:
        pieces: list[Piece] = []
        column = 0
        while column < len(row):
            if row[column] == image_token_id:
                stop = column + widths[index]
                if stop > len(row) or any(one != image_token_id for one in row[column:stop]):
                    raise _mismatch(marks, pictures, positions, broken=True)
                pieces.append(PicturePlace(index))
                index, column = index + 1, stop
                continue
            start = column
            while column < len(row) and row[column] != image_token_id:
                column += 1
            pieces.append(TextSpan(start, column))
        placed.append(pieces)
    return placed


def merge(
    embeds: Tensor,
    ids: Sequence[Sequence[int]],
    rows: Sequence[Sequence[Piece]],
    features: Sequence[Tensor],
    hashes: Sequence[bytes],
    *,
    bidirectional: bool = False,
) -> Prompt:
    """Put the features of each picture into its place among the embeddings.

    Args:
        embeds: (B, T, D), of the ids.
        ids: The ids of each row, without padding.
        rows: The result of `place_pictures`.
        features: (positions, D) of each picture.
        hashes: The identity of each picture. With a number it is the key of each of its positions.
        bidirectional: Whether the positions of a picture see each other. They see
            those of another picture right beside it as any others.

    Returns:
        Rows of T' positions, right-padded with zeros: (B, T', D) in the dtype of ``embeds``.
    """
    import torch

    merged: list[Tensor] = []
    keys: list[tuple[PromptKey, ...]] = []
    spans: list[tuple[tuple[int, int], ...]] = []
    for row, pieces in enumerate(rows):
        parts: list[Tensor] = []
        row_keys: list[PromptKey] = []
        row_spans: list[tuple[int, int]] = []
        for piece in pieces:
            if isinstance(piece, PicturePlace):
                parts.append(features[piece.index].to(embeds.dtype))
                first, count = len(row_keys), len(features[piece.index])
                row_keys += [(hashes[piece.index], n) for n in range(count)]
                row_spans.append((first, first + count))
            else:
                parts.append(embeds[row, piece.start : piece.stop])
                row_keys += ids[row][piece.start : piece.stop]
        merged.append(torch.cat(parts) if parts else embeds[row, :0])
        keys.append(tuple(row_keys))
        spans.append(tuple(row_spans))
    padded = torch.nn.utils.rnn.pad_sequence(merged, batch_first=True)
    lengths = tuple(len(row) for row in merged)
    return Prompt(padded, lengths, tuple(keys), tuple(spans) if bidirectional else ())


def _mismatch(marks: int, pictures: int, positions: int, *, broken: bool = False) -> UsageError:
    count = f"{pictures} picture{'' if pictures == 1 else 's'}"
    if broken:
        reason = f"has {marks} <image> tokens, but not in runs as long as each of {count}"
    else:
        reason = f"has {marks} <image> for {count}"
    if pictures:
        remedy = f"write one <image> for each, or as many as they have positions ({positions})"
    else:
        remedy = "leave it out, or give the pictures"
    return UsageError("prompt", reason, remedy)
