"""``messages`` and ``images`` of a line: a conversation, and what is shown with its last message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from lolama_cli.console import checked
from lolama_cli.pictures import OPTION as IMAGE
from lolama_cli.pictures import check_names
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Message
from lolama_core.protocols.utf8 import is_unicode

_ROLES = ("system", "user", "assistant")
_KEYS = ("role", "content")
GIVE_TEXT = "give some text, or leave the line out"
_FORM = 'write [{"role": "user", "content": "Once upon a time"}]'


def check_messages(value: object) -> list[Message]:
    """The conversation that ``value`` holds; the user has the last word.

    Raises:
        UsageError: naming the message that makes no sense.
    """
    if not isinstance(value, list) or not value:
        raise UsageError("messages", "is no list of messages", _FORM)
    messages = [_message(message, f"messages[{place}]") for place, message in enumerate(value)]
    for place, message in enumerate(messages):
        if message["role"] == "system" and place:
            reason = "is of the system, which speaks first or not at all"
            raise UsageError(f"messages[{place}]", reason, "put it in front")
    if messages[-1]["role"] != "user":
        reason = f"ends with a message of the {messages[-1]['role']}, so there is nothing to answer"
        raise UsageError("messages", reason, "end it with one of the user")
    return messages


def _message(value: object, subject: str) -> Message:
    if not isinstance(value, dict):
        raise UsageError(subject, "is no object", _FORM)
    for key in value:
        if key not in _KEYS:
            raise UsageError(subject, f"has the key {key[:80]!r}", "known are role, content")
    if "role" not in value:
        raise UsageError(subject, "has no role", f"known are {', '.join(_ROLES)}")
    role, content = value["role"], value.get("content")
    if role not in _ROLES:
        close = get_close_matches(str(role), _ROLES, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(_ROLES)}"
        raise UsageError(subject, f"has the role {in_json(role)}", remedy)
    if not isinstance(content, str):
        reason = "has no content that is a text"
        raise UsageError(subject, reason, "write a text; pictures go into images")
    check_unicode(content, subject)
    return {"role": role, "content": checked(content, subject, GIVE_TEXT)}


def in_json(value: object) -> str:
    """A value of a line as its writer spelled it, shortened."""
    return f"{json.dumps(value):.80}"


def check_unicode(text: str, subject: str) -> None:
    """Refuse half of a surrogate pair, which JSON can spell and no tokenizer takes.

    Raises:
        UsageError: about ``subject``.
    """
    if not is_unicode(text):
        reason = "holds half of a surrogate pair, which is not Unicode"
        raise UsageError(subject, reason, "cut texts between characters")


def check_images(value: object) -> tuple[str, ...]:
    """Paths of pictures.

    Raises:
        UsageError: for anything else.
    """
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UsageError("images", "is no list of paths", 'write ["photo.jpg"]')
    if "-" in value:
        reason = "- stands for standard input, which no line can be shown"
        raise UsageError("images", reason, "give the path of a picture")
    try:
        check_names(value, prompt_from_stdin=True)
    except UsageError as error:
        raise in_line(error) from None
    return tuple(value)


def in_line(error: UsageError) -> UsageError:
    """The same error, about ``images`` in the place of ``--image``."""
    subject = "images" if error.subject == IMAGE else error.subject
    return UsageError(subject, error.reason, error.remedy)


def digest_of(names: Sequence[object]) -> str:
    """Hash of what the pictures are now: an answer is that of the picture that was shown."""
    found = hashlib.sha256()
    for name in names:
        try:
            path = Path(str(name))
            data = path.read_bytes() if path.is_file() else b""
        except (OSError, ValueError):
            data = b""
        found.update(hashlib.sha256(data).digest())
    return found.hexdigest()
