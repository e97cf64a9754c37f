"""What begins with a slash: commands of a chat, for people and for lines in a pipe alike."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from lolama.files import expanded
from lolama_cli.chat import settings, transcript
from lolama_cli.chat.command_names import COMMANDS, OTHER_NAMES, TAKE_NOTHING, help_lines
from lolama_cli.chat.transcript import Transcript
from lolama_cli.pictures import check_names
from lolama_cli.settings import to_text
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lolama_cli.chat.partner import ChatPartner
    from lolama_cli.chat.screen import Screen
    from lolama_cli.chat.session import Session


class Leave(Exception):
    """The user wants to go."""


class Commands:
    """Runs the commands of one chat.

    Args:
        session: What they work on.
        screen: Where they show what they have to say.
        load_model: Name → model, for ``/model``.
        file: What ``/save`` without a name writes: where the conversation was loaded from.
    """

    def __init__(
        self,
        session: Session,
        screen: Screen,
        load_model: Callable[[str], ChatPartner],
        file: Path | None = None,
    ) -> None:
        self._session, self._screen, self._load_model, self._file = (
            session,
            screen,
            load_model,
            file,
        )

    def run(self, line: str) -> Iterator[str] | None:
        """Run a line that begins with a slash; a reply, for those that lead to one.

        Raises:
            Leave: for ``/exit``.
            LolamaError: if it cannot be done; nothing has changed then.
        """
        name, _, rest = line[1:].partition(" ")
        name = OTHER_NAMES.get(name, name)
        rest = rest.strip()
        if name not in COMMANDS:
            close = get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.5)
            remedy = f"did you mean /{close[0]}?" if close else "see /help"
            command = f"/{name}"
            raise UsageError(
                command[:40], "no such command", f"{remedy} (a space before it says it)"
            )
        if rest and name in TAKE_NOTHING:
            raise UsageError(f"/{name}", "takes nothing", f"leave out {rest[:40]!r}")
        handler: Callable[[str], Iterator[str] | None] = getattr(self, f"_{name}")
        return handler(rest)

    # ------------------------------------------------------------------------------------------ one by one

    def _help(self, rest: str) -> None:
        for line in help_lines():
            self._screen.say(line)

    def _system(self, text: str) -> None:
        if not text:
            system = self._session.conversation.system
            self._screen.say("the model is told nothing first" if system is None else system)
            return
        self._session.set_system(None if text in ('""', "''") else text)

    def _image(self, rest: str) -> None:
        attached = self._session.attached
        if rest == "-":
            self._session.attached = ()
            self._screen.say(f"took back {_pictures(len(attached))}")
            return
        names = _words("/image", rest)
        if not names:
            for picture in attached:
                self._screen.say(picture.path)
            self._screen.say(f"{_pictures(len(attached))} for the next message")
            return
        self.show(names)

    def show(self, names: Sequence[str]) -> None:
        """Show pictures with the next message: all of them, or none."""
        attached = self._session.attached
        if "-" in names:
            raise UsageError("/image", "- takes pictures back, and stands alone", "")
        try:
            check_names(names, prompt_from_stdin=True)
            for name in names:
                image = self._session.attach(name)
                self._screen.picture(image)
                size = f"{image.width:,} × {image.height:,} pixels"
                self._screen.say(f"{name}, {size}, goes with the next message")
        except UsageError as error:
            self._session.attached = attached
            raise UsageError("/image", error.reason, error.remedy) from None
        except BaseException:
            self._session.attached = attached
            raise

    def _clear(self, rest: str) -> None:
        count = len(self._session.conversation.exchanges)
        self._session.clear()
        self._screen.say(f"the chat forgot {_exchanges(count)}")

    def _undo(self, rest: str) -> None:
        self._screen.say(f"the chat forgot: {_shortened(self._session.undo())}")

    def _retry(self, rest: str) -> Iterator[str]:
        return self._session.retry()

    def _save(self, rest: str) -> None:
        words = _words("/save", rest)
        force = words[:1] == ["--force"]
        names = words[1:] if force else words
        if len(names) > 1:
            raise UsageError("/save", f"{len(names)} names", "give one, in quotes if it has spaces")
        if not names and self._file is None:
            raise UsageError(
                "/save", "has no name to save under", "give one, as in /save chat.json"
            )
        path = expanded(names[0]).absolute() if names else self._file
        assert path is not None
        transcript.save(path, self._transcript(), replace=force or path == self._file)
        self._file = path
        count = len(self._session.conversation.exchanges)
        self._screen.say(f"saved {_exchanges(count)} in {path}")

    def _transcript(self) -> Transcript:
        return Transcript(
            model=self._session.model.name,
            settings=settings.settings_to_save(self._session),
            conversation=self._session.conversation,
        )

    def _load(self, rest: str) -> None:
        words = _words("/load", rest)
        if len(words) != 1:
            raise UsageError("/load", f"{len(words)} names", "give one, in quotes if it has spaces")
        path = expanded(words[0]).absolute()
        self.resume(path, transcript.load(path))

    def resume(self, path: Path, saved: Transcript, *, keep: Sequence[str] = ()) -> None:
        """Go on with a conversation that was saved.

        Args:
            path: Where.
            saved: What was read there.
            keep: Names of settings that stay as they are.
        """
        session = self._session
        trial = replace(session)
        chosen = {name: value for name, value in saved.settings.items() if name not in keep}
        settings.apply(trial, chosen, subject=f"{path}: setting")
        session.resume(saved.conversation)
        session.config, session.given = trial.config, trial.given
        session.overflow = trial.overflow
        self._file = path
        other = saved.model and saved.model != session.model.name
        self._screen.say(
            f"{_exchanges(len(saved.conversation.exchanges))} from {path}"
            + (f", which was talked with {saved.model}" if other else "")
        )
        for exchange in saved.conversation.exchanges[-1:]:
            self._screen.say(f"> {_shortened(exchange.question)}")
            self._screen.say(exchange.reply)

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if value.strip():
            settings.set_from_text(self._session, name, value.strip())
            return
        found = settings.settings_of(self._session)
        if name and name not in found:
            settings.set_from_text(self._session, name, "none")  # which says that there is none
            return
        for key in [name] if name else found:
            self._screen.say(f"{key} {to_text(found[key])}")

    def _model(self, rest: str) -> None:
        session = self._session
        if rest:
            [name] = _words("/model", rest)[:1]
            with session.interruptible():
                model = self._load_model(name)
            session.use(model)
        self._screen.say(described(session.model))

    def _stats(self, rest: str) -> None:
        totals, last = self._session.totals, self._session.last
        if last is None:
            self._screen.say("no reply yet")
            return
        replies = "1 reply" if totals.replies == 1 else f"{totals.replies:,} replies"
        self._screen.say(
            f"{replies}, {totals.new:,} tokens in {totals.seconds:.1f} s; the prompts had {totals.prompt:,} "
            f"tokens, and the model remembered {totals.cached:,} of them"
        )
        self._screen.say(f"last: {last}")

    def _tokens(self, rest: str) -> None:
        session = self._session
        count, limit = session.positions(), session.model.max_seq_len
        conversation = session.conversation
        line = f"{count:,} of {limit:,} tokens ({count / limit:.0%}), {_exchanges(len(conversation.sent))}"
        if conversation.first:
            line += f"; the chat forgot its first {_exchanges(conversation.first)}"
        self._screen.say(line)

    def _copy(self, rest: str) -> None:
        from lolama_cli.chat.clipboard import copy

        exchanges = self._session.conversation.exchanges
        if not exchanges:
            raise UsageError("/copy", "there is no reply yet", "say something first")
        self._screen.say(copy(exchanges[-1].reply, terminal=self._screen.styled))

    def _exit(self, rest: str) -> None:
        raise Leave


def described(model: ChatPartner) -> str:
    """A model in one line."""
    kind = "sees pictures" if model.sees else "text"
    line = f"{model.name}: {kind}, {model.max_seq_len:,} tokens of context"
    if model.continues_text:
        line += "; no chat template in use, so it continues what you type"
    return line


def _words(command: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(command, str(error).lower(), "end the quotes") from None
    if "" in words:
        raise UsageError(command, "a name is empty", "write one, or nothing")
    return words


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _exchanges(count: int) -> str:
    return f"{count:,} exchange{'' if count == 1 else 's'}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:69] + "…"
