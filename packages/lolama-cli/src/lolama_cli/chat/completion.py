"""What Tab completes in a chat: slash commands, their words, and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

_WORDS_BEFORE = re.compile(r"""(?:(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])*\s+)*""")
"""Whole words, cut as a shell cuts them; what is behind them may have open quotes."""

_ESCAPED = re.compile(r"\\(.)")
_SPECIAL = re.compile(r"""[\s'"\\]""")


class SlashCompleter(Completer):
    """Completes slash commands and what follows them; a message is left alone.

    Args:
        completions: What may follow a slash command: its name (without the slash) → the words, or None for
            the paths of files.
    """

    def __init__(self, completions: Callable[[str], Sequence[str] | None]) -> None:
        self._completions = completions
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What could stand in the place of the word before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, space, rest = text[1:].partition(" ")
        if not space:
            for name in self._completions("") or ():
                if name.startswith(command):
                    yield Completion(f"/{name}", start_position=-len(text))
            return
        words = self._completions(command)
        if words is None:
            yield from self._complete_path(rest, complete_event)
            return
        for word in words:
            if word.startswith(rest):
                yield Completion(word, start_position=-len(rest))

    def _complete_path(self, text: str, event: CompleteEvent) -> Iterable[Completion]:
        before = _WORDS_BEFORE.match(text)
        assert before is not None  # it may be empty
        typed = text[before.end() :]
        quote = typed[:1] if typed[:1] in ("'", '"') else ""
        begun = typed.strip(quote) if quote else _ESCAPED.sub(r"\1", typed)
        for found in self._paths.get_completions(Document(begun), event):
            path = begun + found.text
            if os.path.isdir(os.path.expanduser(path)):
                path += "/"
            quoted = quote and not {quote, "\\"} & set(path)
            spelled = quote + path if quoted else _SPECIAL.sub(r"\\\g<0>", path)
            yield Completion(spelled, start_position=-len(typed), display=found.display)


def complete(buffer: Buffer) -> None:
    """What Tab does: the next candidate, or, behind the only one, what may follow it."""
    state = buffer.complete_state
    if state is None:
        buffer.start_completion(insert_common_part=True)
    elif state.current_completion is not None and len(state.completions) == 1:
        buffer.complete_state = None
        buffer.start_completion(insert_common_part=True)
    else:
        buffer.complete_next()
