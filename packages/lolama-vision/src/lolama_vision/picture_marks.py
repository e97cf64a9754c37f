"""The ids that stand around the tiles of a picture in a prompt (Idefics3, SmolVLM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lolama_core.protocols.checks import is_integer, refused

_LARGEST_ID = 1 << 22
_MOST_IDS = 64


@dataclass(frozen=True, kw_only=True)
class PictureMarks:
    """Which ids tell a language model where a tile stands in its picture.

    Args:
        around: Ahead of every tile, and behind the last.
        whole: Between ``around`` and the picture as a whole.
        tiles: Row → column → ids between ``around`` and the tile at this place.
        row_end: Behind a row of tiles.
        rows_end: Behind the last row.
    """

    around: tuple[int, ...]
    whole: tuple[int, ...]
    tiles: tuple[tuple[tuple[int, ...], ...], ...]
    row_end: tuple[int, ...]
    rows_end: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("around", "whole", "row_end", "rows_end"):
            object.__setattr__(self, name, checked_ids(f"marks {name}", getattr(self, name)))
        if not isinstance(self.tiles, list | tuple):
            raise refused("marks tiles", self.tiles, "a list of rows")
        rows = []
        for row in self.tiles:
            if not isinstance(row, list | tuple):
                raise refused("marks tiles", self.tiles, "a list of rows")
            rows.append(tuple(checked_ids("marks tiles", ids) for ids in row))
        object.__setattr__(self, "tiles", tuple(rows))

    def has(self, side: int) -> bool:
        """Whether there are marks for ``side`` rows and columns of tiles."""
        return len(self.tiles) >= side and all(len(row) >= side for row in self.tiles[:side])

    def between(self, rows: int, columns: int) -> list[tuple[int, ...]]:
        """The ids ahead of each tile of a picture, and those behind the last.

        Args:
            rows, columns: How many tiles there are ahead of the whole picture; 0 if it is not cut.

        Example:
            >>> marks = PictureMarks(around=[1], whole=[2], tiles=[[[3], [4]]], row_end=[5], rows_end=[6])
            >>> marks.between(1, 2)
            [(1, 3), (1, 4), (6, 1, 2), (1,)]
        """
        pieces = []
        for row in range(rows):
            for column in range(columns):
                ended = self.row_end if row and not column else ()
                pieces.append((*ended, *self.around, *self.tiles[row][column]))
        ended = self.rows_end if rows else ()
        return [*pieces, (*ended, *self.around, *self.whole), self.around]


def checked_ids(name: str, ids: Sequence[int]) -> tuple[int, ...]:
    """The same ids as a tuple.

    Raises:
        ModelError: naming ``name``, if they are not token ids, or too many.
    """
    expected = f"at most {_MOST_IDS} token ids"
    if not isinstance(ids, list | tuple) or len(ids) > _MOST_IDS:
        raise refused(name, ids, expected)
    if not all(is_integer(one, 0, _LARGEST_ID) for one in ids):
        raise refused(name, ids, expected)
    return tuple(ids)
