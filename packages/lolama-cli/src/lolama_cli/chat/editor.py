"""The line where messages are typed: edited, completed and remembered over sessions, by prompt_toolkit."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from prompt_toolkit import PromptSession
from prompt_toolkit.filters import is_searching
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.search import stop_search
from prompt_toolkit.styles import Style

from lolama_cli.chat.completion import SlashCompleter, complete
from lolama_cli.chat.quotes import is_open, unquoted
from lolama_cli.console import note
from lolama_cli.errors import Terminated
from lolama_cli.regular_files import check_regular
from lolama_core.protocols.errors import LolamaError, UsageError
from lolama_core.protocols.utf8 import is_unicode

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.output import Output

_STYLE = Style.from_dict({"prompt": "bold ansigreen", "continuation": "ansibrightblack"})


class Editor:
    """Reads messages from a terminal.

    Enter sends. Alt-Enter begins a new line; so does Enter behind a backslash, and between two triple quotes.
    Ctrl-C leaves a search, or empties the line; on an empty one it leaves, and so does Ctrl-D.

    Args:
        completions: What may follow a slash command: its name (without the slash) → the words, or None for
            the paths of files.
    """

    def __init__(self, completions: Callable[[str], Sequence[str] | None]) -> None:
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("class:prompt", "> ")]),
            multiline=True,
            prompt_continuation=FormattedText([("class:continuation", ". ")]),
            history=_history(),
            completer=SlashCompleter(completions),
            complete_while_typing=True,
            reserve_space_for_menu=4,
            key_bindings=_keys(),
            enable_suspend=True,
            style=_STYLE,
            output=_output(),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    def read(self) -> str:
        """The next message.

        Raises:
            EOFError: for Ctrl-D on an empty line.
            KeyboardInterrupt: for Ctrl-C on an empty line.
            Terminated: for SIGTERM, once the terminal is as it was.
            UsageError: for bytes that are no text; the next message can be read then.
        """
        with _Signals(self._session.app) as signals:
            message = self._session.prompt(pre_run=signals.answer, handle_sigint=False)
        # prompt_toolkit hands on bytes that are not UTF-8 as half pairs.
        if not is_unicode(message):
            raise UsageError("message", "is not UTF-8", "set the terminal to UTF-8")
        return unquoted(message)


def _output() -> Output:
    # Standard output may be a file that replies go to; then what is typed is shown on standard error.
    return create_output(stdout=sys.stdout if sys.stdout.isatty() else sys.stderr)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            buffer.complete_state = None  # what was chosen stands there already
        elif buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("tab", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        complete(event.current_buffer)

    @keys.add("c-c", filter=is_searching)
    @keys.add("<sigint>", filter=is_searching)
    def _(event: KeyPressEvent) -> None:
        stop_search()

    @keys.add("c-c", filter=~is_searching)
    @keys.add("<sigint>", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys


class _Signals:
    """Ctrl-C and SIGTERM while the editor opens, reads and closes: kept until it can leave in good order.

    An exception out of a handler, anywhere in an event loop, would leave the terminal raw or print a stack.
    """

    def __init__(self, app: Application[str]) -> None:
        self._app = app
        self._arrived: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        """Raises KeyboardInterrupt or Terminated for a signal that came too late for the editor."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if signal.SIGTERM in self._arrived:
            raise Terminated
        if self._arrived:
            raise KeyboardInterrupt

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append(number)
        if self._app.loop is not None:
            self._app.loop.call_soon_threadsafe(self.answer)

    def answer(self) -> None:
        """Act on what has arrived, if the editor is open."""
        while self._arrived and self._app.future is not None and not self._app.future.done():
            if self._arrived.pop(0) == signal.SIGINT:
                self._app.key_processor.send_sigint()
            else:
                self._app.exit(exception=Terminated())


class _History(FileHistory):
    """A disk that is full is no reason to fail: then a line is remembered until the end of the session."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _history() -> History:
    """What was typed in this and earlier sessions, in a file that nobody else may read."""
    from lolama.files import own_directory

    try:
        path = own_directory("chat") / "history"
        check_regular(path, "remove it")
        _make_private(path)
        return _History(str(path))
    except (LolamaError, OSError) as error:
        note(f"note: what you type is not remembered over sessions: {error}")
        return InMemoryHistory()


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    path.chmod(0o600)
