"""``/set``: settings by name, as the options of the command line are called."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, get_args

from lolama_cli.chat.context import Overflow
from lolama_cli.chat.session import Session
from lolama_cli.settings import COMMON, SETTINGS, from_json, from_text, to_json
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.settings import Setting
from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama import GenerationConfig

OVERFLOW = "overflow"
NAMES = (*(key.replace("_", "-") for key in SETTINGS), OVERFLOW)


def settings_of(session: Session) -> dict[str, JSON]:
    """All settings, by name."""
    found: dict[str, JSON] = {
        key.replace("_", "-"): to_json(getattr(session.config, row.name))
        for key, row in SETTINGS.items()
    }
    return {**found, OVERFLOW: session.overflow}


def settings_to_save(session: Session) -> dict[str, JSON]:
    """Those that a saved conversation goes on with: common ones, and others that the user asked for.

    Of the rest a model's own ones may be in force, and another model's should be.
    """
    kept = {key for key, row in SETTINGS.items() if key in COMMON or row.name in session.given}
    names = {OVERFLOW, *(key.replace("_", "-") for key in kept)}
    return {name: value for name, value in settings_of(session).items() if name in names}


def set_from_text(session: Session, name: str, text: str) -> None:
    """``/set NAME VALUE``.

    Raises:
        UsageError: for a name that is none, or a value out of range.
    """
    name = name.lstrip("-").replace("_", "-")
    row = SETTINGS.get(name.replace("-", "_"))
    if row is None:
        apply(session, {name: text})
        return
    apply(session, {name: to_json(from_text(row, text, f"/set {name}"))})


def apply(session: Session, values: Mapping[str, JSON], *, subject: str = "/set") -> None:
    """Set several at once, or none of them.

    Raises:
        UsageError: for a name that is none, or a value out of range.
    """
    config, given, overflow = session.config, session.given, session.overflow
    for name, value in values.items():
        if name == OVERFLOW:
            overflow = _overflow(value, subject)
        elif name in NAMES:
            row = SETTINGS[name.replace("-", "_")]
            config = _changed(config, row, value, f"{subject} {name}")
            given |= {row.name}
        else:
            close = get_close_matches(name, NAMES, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(NAMES)}"
            raise UsageError(subject, f"{name!r:.40} is no setting", remedy)
    session.config, session.given, session.overflow = config, given, overflow


def _changed(config: GenerationConfig, row: Setting, value: JSON, subject: str) -> GenerationConfig:
    try:
        changed: dict[str, Any] = {row.name: from_json(row, value)}
        return config.with_settings(**changed)
    except UsageError as error:
        raise UsageError(subject, error.reason, error.remedy) from None


def _overflow(value: JSON, subject: str) -> Overflow:
    if value not in get_args(Overflow):
        known = " or ".join(get_args(Overflow))
        raise UsageError(f"{subject} {OVERFLOW}", f"{value!r:.40} is neither {known}", "")
    return cast("Overflow", value)
