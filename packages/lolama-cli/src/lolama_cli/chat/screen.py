"""What a chat shows: replies on standard output, and nothing else there; all the rest on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from lolama.thinking import is_thought
from lolama_cli.chat.markdown import MarkdownStream
from lolama_cli.console import Output, note, visible

if TYPE_CHECKING:
    from PIL.Image import Image


class Screen:
    """Shows replies while they come.

    Into a pipe or file a reply goes byte for byte, and a line break ends it. On a terminal control
    characters are spelled out, and Markdown becomes styles. What a model thinks before it replies is faint
    on a terminal, and left out elsewhere.

    Args:
        plain: No styles, no colors, no pictures: text alone, as a screen reader takes it.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self._output = Output()
        self.styled = self._output.is_terminal and not plain
        self._colors = self.styled and not os.environ.get("NO_COLOR")
        self._markdown = MarkdownStream(colors=self._colors)

    def reply(self, piece: str) -> None:
        """Show the next piece of a reply.

        Raises:
            ClosedPipeError, ResourceError: if standard output cannot be written.
        """
        if is_thought(piece):
            self._output.thought(piece)
            return
        if piece:
            self._output.end_thought()
        if self.styled:
            self._output.stream_styled(self._markdown.push(visible(piece, keep="\n\t")))
        else:
            self._output.write(piece)

    def end_reply(self) -> None:
        """Show what was held back, and end the line."""
        if self.styled:
            self._output.stream_styled(self._markdown.finish())
        if self._output.is_terminal:
            self._output.end_line()
        else:
            self._output.write("\n")

    def pause(self) -> None:
        """End what is shown of a reply that goes on after something else."""
        if self.styled:
            self._output.stream_styled(self._markdown.finish())
        self._output.end_line()

    def leave(self) -> None:
        """Bring a terminal back from whatever was being shown, at once."""
        if self.styled:
            with contextlib.suppress(OSError):
                os.write(1, b"\x1b[0m\n")

    def say(self, text: str) -> None:
        """Lines for the user that are no reply."""
        for line in text.splitlines() or [""]:
            note(line)

    def picture(self, image: Image) -> None:
        """Show a picture small, on a terminal that says it has the colors for it."""
        stream = sys.stderr
        if not self._colors or stream is None or not stream.isatty():
            return
        if os.environ.get("COLORTERM") not in ("truecolor", "24bit"):
            return
        from lolama_cli.chat.preview import half_blocks

        preview = half_blocks(image)
        try:
            preview.encode(stream.encoding)
        except UnicodeEncodeError:
            return
        stream.write(preview)
        stream.flush()
