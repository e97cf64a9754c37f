"""The progress of a download on standard error: a bar for the file, and one for the whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lolama_cli.console import note, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def transfer_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """A function that draws what a download tells it; None where standard error is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bars = _Bars()
    try:
        yield bars.update
    except KeyboardInterrupt:
        if bars.stop():
            note("note: what has come is kept; run it again to go on")
        raise
    finally:
        bars.stop()


class _Bars:
    """Drawn from the first byte on, so that nothing moves while a question is being asked."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def update(self, file: str, done: int, size: int) -> None:
        if self._progress is None:
            self._progress = _new_progress()
            self._whole = self._progress.add_task("in all", total=0)
            self._progress.start()
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task(
                visible(file), total=size, completed=done, visible=False
            )
            self._sizes[file] = size
        self._done[file] = done
        # The file that grows is shown above the whole.
        self._progress.update(self._tasks[file], completed=done, visible=0 < done < size)
        total, here = sum(self._sizes.values()), sum(self._done.values())
        self._progress.update(self._whole, total=total, completed=here)

    def stop(self) -> bool:
        """Whether anything was drawn."""
        if self._progress is None:
            return False
        self._progress.stop()
        return True


def _new_progress() -> Progress:
    from rich.console import Console, RenderableType
    from rich.constrain import Constrain
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)

    class NotToTheEdge(Progress):
        """Leaves room for the ^C that a terminal shows, which would begin a line of its own."""

        def get_renderable(self) -> RenderableType:
            return Constrain(super().get_renderable(), console.width - 3)

    return NotToTheEdge(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        expand=True,
    )
