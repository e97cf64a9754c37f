"""``/set``: settings by name, as the options of the command line are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, get_args

from lolama_cli.chat.context import Overflow
from lolama_cli.chat.session import Session
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama import GenerationConfig

OVERFLOW = "overflow"
_NAMES = {
    "max-tokens": "max_new_tokens",
    "temperature": "temperature",
    "top-p": "top_p",
    "top-k": "top_k",
    "min-p": "min_p",
    "repetition-penalty": "repetition_penalty",
    "stop": "stop",
    "seed": "seed",
}
"""Name here → field of `GenerationConfig`."""

NAMES = (*_NAMES, OVERFLOW)


def settings_of(session: Session) -> dict[str, JSON]:
    """All settings, by name."""
    found: dict[str, JSON] = {
        name: _plain(getattr(session.config, field)) for name, field in _NAMES.items()
    }
    return {**found, OVERFLOW: session.overflow}


def set_from_text(session: Session, name: str, text: str) -> None:
    """``/set NAME VALUE``.

    Raises:
        UsageError: for a name that is none, or a value out of range.
    """
    name = name.lstrip("-").replace("_", "-")
    if name == "stop":
        apply(session, {name: [] if text == "none" else [text]})
    elif name == OVERFLOW:
        apply(session, {name: text})
    else:
        apply(session, {name: _number(text)})


def apply(session: Session, values: Mapping[str, JSON], *, subject: str = "/set") -> None:
    """Set several at once, or none of them.

    Raises:
        UsageError: for a name that is none, or a value out of range.
    """
    config, overflow = session.config, session.overflow
    for name, value in values.items():
        if name == OVERFLOW:
            overflow = _overflow(value, subject)
        elif name in _NAMES:
            config = _changed(config, name, value, subject)
        else:
            close = get_close_matches(name, NAMES, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(NAMES)}"
            raise UsageError(subject, f"{name!r:.40} is no setting", remedy)
    session.config, session.overflow = config, overflow


def _changed(config: GenerationConfig, name: str, value: JSON, subject: str) -> GenerationConfig:
    try:
        return config.with_settings(**{_NAMES[name]: cast("Any", value)})
    except UsageError as error:
        raise UsageError(f"{subject} {name}", error.reason, error.remedy) from None


def _overflow(value: JSON, subject: str) -> Overflow:
    if value not in get_args(Overflow):
        known = " or ".join(get_args(Overflow))
        raise UsageError(f"{subject} {OVERFLOW}", f"{value!r:.40} is neither {known}", "")
    return cast("Overflow", value)


def _number(text: str) -> JSON:
    """A number, or what says in an error that it is none."""
    if text == "none":
        return None
    try:
        value: JSON = json.loads(text) if len(text) < 40 else text
    except ValueError:
        return text
    return value


def _plain(value: Any) -> JSON:
    return list(value) if isinstance(value, tuple) else cast("JSON", value)
