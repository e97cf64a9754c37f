"""The lines of a batch: a prompt each, with settings of its own if it has any."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from lolama_cli.console import MAX_PROMPT_BYTES, checked_text
from lolama_cli.options import check_system, generation_config
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.utf8 import decode_utf8, is_unicode

if TYPE_CHECKING:
    from lolama import GenerationConfig

# What a line may hold beside its prompt → the field of `GenerationConfig`.
_SETTINGS = {
    "max_tokens": "max_new_tokens",
    **{
        name: name
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "seed")
    },
}
_KEYS = ("prompt", "id", "system", *_SETTINGS)
_LONGEST_LINE = 4 * MAX_PROMPT_BYTES


@dataclass(frozen=True)
class Common:
    """What holds for every line that does not say otherwise.

    Attributes:
        config: The settings. A seed is that of line 0: every line adds its number to it, so that equal
            prompts get answers of their own.
        system: What the model is told before the prompt.
        raw: Whether chat templates are left aside.
        identity: Of the model and everything else that shapes the answers, for the lines' keys.
    """

    config: GenerationConfig
    system: str | None
    raw: bool
    identity: Mapping[str, object]


@dataclass(frozen=True)
class Line:
    """A line of the input.

    Attributes:
        number: Its place; the first is 1.
        text: What it holds.
        key: Hash of everything that its answer depends on.
    """

    number: int
    text: str
    key: str


@dataclass(frozen=True)
class Prompt:
    """What a line asks for."""

    text: str
    system: str | None
    config: GenerationConfig


def read_lines(source: Path | None, common: Common) -> Iterator[Line]:
    """The lines that are not blank; ``source`` is a file, None standard input.

    Raises:
        UsageError: for a file that cannot be read, or is not UTF-8.
    """
    subject = "standard input" if source is None else str(source)
    base = json.dumps(
        [_as_json(common.config), common.system, common.raw, common.identity], sort_keys=True
    )
    try:
        if source is None:
            if sys.stdin is None:
                raise UsageError(subject, "is closed", "give a file to --batch")
            stream = sys.stdin.buffer
        elif not source.is_file():
            reason = "is no regular file" if source.exists() else "there is no such file"
            raise UsageError(subject, reason, "give a file of JSON lines to --batch")
        else:
            stream = source.open("rb")
        with stream:
            number = 0
            while data := stream.readline(_LONGEST_LINE + 1):
                number += 1
                if len(data) > _LONGEST_LINE:
                    reason = f"line {number} is longer than {_LONGEST_LINE:,} bytes"
                    raise UsageError(subject, reason, "shorten it")
                try:
                    text = decode_utf8(data).strip()
                except ValueError as error:
                    remedy = "convert it, for example with iconv"
                    raise UsageError(subject, f"line {number} {error}", remedy) from None
                if text:
                    yield Line(number, text, _digest(f"{base}\n{number}\n{text}"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise UsageError(subject, reason, "give another file to --batch") from None


def parse(line: Line, common: Common) -> Prompt:
    """What a line asks for: a JSON text is a prompt, an object holds one and what goes with it.

    Raises:
        UsageError: for anything else, an unknown key, or a setting out of range.
    """
    subject = f"line {line.number}"
    values = _json_of(line, subject)
    if isinstance(values, str):
        values = {"prompt": values}
    if not isinstance(values, dict):
        raise UsageError(subject, "is neither a text nor an object", _FORM)
    for key in values:
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KEYS)}"
            raise UsageError(subject, f"has the key {key[:80]!r}", remedy)
    # JSON can spell half of a surrogate pair. As an id it is handed back; no tokenizer takes it.
    for key, text in values.items():
        if key != "id" and isinstance(text, str) and not is_unicode(text):
            reason = f"{key} holds half of a surrogate pair, which is not Unicode"
            raise UsageError(subject, reason, "cut texts between characters")
    if "id" in values and not _is_id(values["id"]):
        raise UsageError(subject, "has an id that is neither a text nor a whole number", "")
    text = values.get("prompt")
    if not isinstance(text, str):
        raise UsageError(subject, "has no prompt that is a text", _FORM)
    system = values.get("system", common.system)
    if not isinstance(system, str | None):
        raise UsageError(subject, "has a system message that is no text", "give a text")
    own = {_SETTINGS[key]: value for key, value in values.items() if key in _SETTINGS}
    settings = _as_json(common.config) | own
    if own.get("seed") is None:
        seed = common.config.seed
        settings["seed"] = None if seed is None else (seed + line.number) % (1 << 63)
    try:
        return Prompt(
            checked_text(text, "prompt"),
            check_system(system, raw=common.raw),
            generation_config(**settings),
        )
    except UsageError as error:
        reason = f"{error.subject.removeprefix('--').replace('-', '_')} {error.reason}"
        raise UsageError(subject, reason, error.remedy) from None


_FORM = 'write {"prompt": "Once upon a time"}, one a line'


def line_id(line: Line) -> dict[str, str | int]:
    """The ``id`` of a line, to be handed back with its answer, if it has one."""
    try:
        values = _load(line.text)
    except (ValueError, RecursionError):
        return {}
    found = values.get("id") if isinstance(values, dict) else None
    return {"id": found} if _is_id(found) else {}


def _is_id(value: object) -> TypeGuard[str | int]:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _load(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")  # though Python's reader takes it for one

    return json.loads(text, parse_constant=refuse)


def _json_of(line: Line, subject: str) -> Any:
    try:
        return _load(line.text)
    except RecursionError:
        raise UsageError(subject, "is nested too deeply", _FORM) from None
    except ValueError as error:
        reason = f"is not JSON ({str(error)[:80]})"
        raise UsageError(subject, reason, _FORM) from None


def _as_json(config: GenerationConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
