"""Messages of several lines between three double quotes, as people type them."""

from __future__ import annotations

_QUOTES = '"""'


def is_open(text: str) -> bool:
    """Whether ``text`` begins with three quotes, and no others end it yet."""
    return text.startswith(_QUOTES) and text.count(_QUOTES) == 1


def unquoted(message: str) -> str:
    """What stands between three quotes, without the line breaks beside them; any other message as it is."""
    body = message.rstrip()
    if not (body.startswith(_QUOTES) and body.endswith(_QUOTES) and body.count(_QUOTES) == 2):
        return message
    return body[len(_QUOTES) : -len(_QUOTES)].removeprefix("\n").removesuffix("\n")
