"""Places of pictures in a prompt, and their features in these places, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lolama_core.protocols.errors import UsageError
from lolama_vision.merge import PicturePlace, TextSpan, merge, place_pictures

IMAGE = 9


@pytest.mark.parametrize(
    ("row", "counts", "placed"),
    [
        ([1, 2], [], [TextSpan(0, 2)]),
        ([IMAGE, 5], [3], [PicturePlace(0), TextSpan(1, 2)]),
        ([1, IMAGE, IMAGE, IMAGE, 5], [3], [TextSpan(0, 1), PicturePlace(0), TextSpan(4, 5)]),
        ([IMAGE, IMAGE], [2, 3], [PicturePlace(0), PicturePlace(1)]),
        ([IMAGE] * 5, [2, 3], [PicturePlace(0), PicturePlace(1)]),
    ],
)
def test_a_picture_stands_at_one_token_or_at_one_for_each_position(
    row: list[int], counts: list[int], placed: list[TextSpan | PicturePlace]
) -> None:
    assert place_pictures([row], counts, IMAGE) == [placed]


def test_pictures_are_taken_row_by_row() -> None:
    assert place_pictures([[IMAGE], [1, IMAGE]], [2, 2], IMAGE) == [
        [PicturePlace(0)],
        [TextSpan(0, 1), PicturePlace(1)],
    ]


def test_runs_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="not in runs as long as each of 2 pictures"):
        place_pictures([[IMAGE, IMAGE, 1, IMAGE, IMAGE]], [1, 3], IMAGE)


def test_features_take_the_place_of_the_image_token() -> None:
    embeds = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])  # (2, 3, 1)
    features = [torch.tensor([[10.0], [11.0]], dtype=torch.float64)]
    ids = [[7, IMAGE, 8], [5]]
    prompt = merge(embeds, ids, place_pictures(ids, [2], IMAGE), features, [b"picture"])
    assert prompt.embeds.tolist() == [[[1.0], [10.0], [11.0], [3.0]], [[4.0], [0.0], [0.0], [0.0]]]
    assert prompt.embeds.dtype == torch.float32
    assert prompt.lengths == (4, 1)
    assert prompt.keys == ((7, (b"picture", 0), (b"picture", 1), 8), (5,))
    assert prompt.spans == ()


def test_positions_of_a_picture_may_see_each_other() -> None:
    embeds = torch.zeros(2, 4, 1)
    features = [torch.ones(2, 1), torch.ones(3, 1)]
    ids = [[7, IMAGE, IMAGE, 8], [5]]
    rows = place_pictures(ids, [2, 3], IMAGE)
    prompt = merge(embeds, ids, rows, features, [b"one", b"two"], bidirectional=True)
    assert prompt.spans == (((1, 3), (3, 6)), ())
