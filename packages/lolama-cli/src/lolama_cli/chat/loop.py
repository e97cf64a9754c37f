"""A chat from its first message to its end: reading, replying, and going on after whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lolama.thinking import Thought, is_thought
from lolama_cli.chat.commands import Commands, Leave
from lolama_cli.chat.interrupts import Interrupts
from lolama_cli.chat.screen import Screen
from lolama_cli.chat.session import Session
from lolama_cli.console import STANDARD_OUTPUT, ClosedPipeError, note
from lolama_cli.errors import Settings, report
from lolama_core.protocols.errors import EXIT_DONE, LolamaError


class Reader(Protocol):
    """Where messages come from; raises EOFError at their end, and KeyboardInterrupt for leaving at once."""

    def read(self) -> str:
        """The next message."""
        ...


class Chat:
    """Runs a session on the three standard streams.

    Args:
        session: What is talked in.
        reader: Where messages come from.
        screen: Where replies go.
        commands: What begins with a slash.
        interrupts: Ctrl-C in a chat with a person. None for lines from a pipe: there Ctrl-C ends the program,
            and its exit code is that of the first error.
        settings: Options that every command takes.
        stream: Whether replies are shown while they come.
    """

    def __init__(
        self,
        session: Session,
        reader: Reader,
        screen: Screen,
        commands: Commands,
        *,
        interrupts: Interrupts | None,
        settings: Settings,
        stream: bool = True,
    ) -> None:
        self._session, self._reader, self._screen, self._commands = (
            session,
            reader,
            screen,
            commands,
        )
        self._interrupts, self._settings, self._stream = interrupts, settings, stream
        self._code = EXIT_DONE

    def run(self) -> int:
        """Talk until one side leaves; the exit code.

        Raises:
            KeyboardInterrupt: if the user leaves by Ctrl-C, twice in a row: the first may have been meant
                for a reply that ended in that moment.
            ClosedPipeError, ResourceError: if replies cannot be shown any more.
        """
        interrupted = False
        while True:
            if self._interrupts is not None:
                self._interrupts.forget()
            try:
                with self._session.interruptible():
                    message = self._reader.read()
            except EOFError:
                return self._code
            except KeyboardInterrupt:
                if self._interrupts is None or interrupted:
                    raise
                interrupted = True
                note("Ctrl-C again, or /exit, leaves")
                continue
            except LolamaError as error:
                self._failed(error)
                continue
            interrupted = False
            if not message.strip():
                continue
            try:
                self._answer(message)
            except Leave:
                return self._code
            except KeyboardInterrupt:
                if self._interrupts is None:
                    raise
                interrupted = True
                note(
                    "stopped" if self._session.unanswered is None else "stopped; /retry asks again"
                )
            except ClosedPipeError:
                raise
            except Exception as error:
                if isinstance(error, LolamaError) and error.subject == STANDARD_OUTPUT:
                    raise
                self._failed(error)

    def _answer(self, message: str) -> None:
        if message.startswith("/"):
            pieces = self._commands.run(message.rstrip())
            if pieces is None:
                return
        else:
            pieces = self._session.ask(message)
        before = self._session.last
        self._show(pieces)
        for remark in self._session.remarks:
            note(f"note: {remark}")
        if self._settings.verbose and self._session.last is not before:
            note(str(self._session.last))

    def _show(self, pieces: Iterator[str]) -> None:
        said = False
        held = []
        try:
            for piece in pieces:
                if self._stream:
                    said = True
                    self._screen.reply(piece)
                else:
                    held.append(piece)
        except Exception:
            if said:
                self._screen.end_reply()
            raise
        except KeyboardInterrupt:
            self._finish(held)
            raise
        self._finish(held)

    def _finish(self, held: list[str]) -> None:
        self._screen.reply(Thought("".join(filter(is_thought, held))))
        self._screen.reply("".join(piece for piece in held if not is_thought(piece)))
        self._screen.end_reply()

    def _failed(self, error: Exception) -> None:
        code = report(error, self._settings)
        if self._interrupts is None and self._code == EXIT_DONE:
            self._code = code
