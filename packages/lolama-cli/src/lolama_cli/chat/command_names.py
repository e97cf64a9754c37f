"""The commands of a chat by name: what ``/help`` says of them, and what may follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lolama_cli.chat import settings


@dataclass(frozen=True)
class Command:
    """One line of ``/help``."""

    usage: str
    summary: str


COMMANDS = {
    "help": Command("/help", "show this"),
    "system": Command("/system [TEXT]", 'what the model is told first; "" for nothing'),
    "image": Command("/image PATH...", "show pictures with the next message; - takes them back"),
    "clear": Command("/clear", "forget the conversation"),
    "undo": Command("/undo", "forget the last message and its reply"),
    "retry": Command("/retry", "ask the last message again"),
    "save": Command("/save [--force] [FILE]", "write the conversation as JSON"),
    "load": Command("/load FILE", "go on with a conversation that was saved"),
    "set": Command("/set [NAME VALUE]", "a setting, such as temperature; all of them"),
    "model": Command("/model [NAME]", "go on with another model"),
    "stats": Command("/stats", "tokens and seconds so far"),
    "tokens": Command("/tokens", "how full the context is"),
    "copy": Command("/copy", "the last reply into the clipboard"),
    "exit": Command("/exit", "leave; so do Ctrl-D, and Ctrl-C twice"),
}
_LINES = '"""TEXT"""'
OTHER_NAMES = {"quit": "exit", "bye": "exit", "q": "exit", "h": "help", "?": "help"}
TAKE_NOTHING = ("help", "clear", "undo", "retry", "stats", "tokens", "copy", "exit")
_TAKE_PATHS = ("image", "save", "load")


def help_lines() -> Iterator[str]:
    """What ``/help`` shows."""
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        yield f"{command.usage:<{width}}  {command.summary}"
    yield f"{_LINES:<{width}}  typed, a message of several lines; or end lines with \\"


def completions(name: str) -> Sequence[str] | None:
    """What may follow a command; of "" the commands themselves; None for paths."""
    if not name:
        return list(COMMANDS)
    if name in _TAKE_PATHS:
        return None
    if name == "set":
        return settings.NAMES
    if name == "model":
        from lolama import names

        return [info.alias for info in names.known_models()]
    return ()
