"""The lines of a batch: a prompt or a conversation each, with settings of its own if it has any."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from lolama_cli.answer_options import KEYS as ANSWER_KEYS
from lolama_cli.answer_options import grammar_of_line
from lolama_cli.batch.messages import (
    GIVE_TEXT,
    check_images,
    check_messages,
    check_unicode,
    digest_of,
    in_json,
)
from lolama_cli.console import MAX_PROMPT_BYTES, checked
from lolama_cli.options import check_system
from lolama_cli.setting_options import generation_config
from lolama_cli.settings import SETTINGS, expected_in_json, from_json
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.utf8 import decode_utf8

if TYPE_CHECKING:
    from lolama import GenerationConfig
    from lolama.grammar import Grammar
    from lolama_core.protocols.types import Message

_KEYS = ("prompt", "messages", "images", "id", "system", *ANSWER_KEYS, *SETTINGS)
# Settings that the key of a line always holds. Others came later than the first files of answers. The key
# holds them only if they are not at their defaults, so that such files go on.
_ALWAYS_IN_KEYS = {
    *("max_new_tokens", "stop", "seed", "ignore_eos", "logit_bias", "typical_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("temperature", "top_k", "top_p", "min_p"),
}
_LONGEST_LINE = 4 * MAX_PROMPT_BYTES


@dataclass(frozen=True)
class BatchSettings:
    """What holds for every line that does not say otherwise.

    Attributes:
        config: The settings. A seed is that of line 0: every line adds its number to it, so that equal
            prompts get answers of their own.
        system: What the model is told before the prompt.
        raw: Whether chat templates are left aside.
        identity: Identifies the model and everything else that shapes the answers, for the lines' keys.
        grammar: What answers may be.
    """

    config: GenerationConfig
    system: str | None
    raw: bool
    identity: Mapping[str, object]
    grammar: Grammar | None = None


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
class BatchPrompt:
    """What a line asks for.

    Attributes:
        messages: A conversation that ends with the user; or the only thing that is said.
        alone: Whether that is so: then it needs no chat template.
        images: Paths of the pictures that are shown with the last message.
        config: How to answer it.
        grammar: What the answer may be.
    """

    messages: Sequence[Message]
    alone: bool
    images: tuple[str, ...]
    config: GenerationConfig
    grammar: Grammar | None


def read_lines(source: Path | None, common: BatchSettings) -> Iterator[Line]:
    """The lines that are not blank; ``source`` is a file, None standard input.

    Raises:
        UsageError: for a file that cannot be read, or is not UTF-8.
    """
    subject = "standard input" if source is None else str(source)
    settings = {
        row.name: value
        for row in SETTINGS.values()
        if (value := getattr(common.config, row.name)) != row.default or row.name in _ALWAYS_IN_KEYS
    }
    base = json.dumps([settings, common.system, common.raw, common.identity], sort_keys=True)
    try:
        if source is None:
            if sys.stdin is None:
                raise UsageError(subject, "is closed", "give a file to --batch")
            stream = sys.stdin.buffer
        elif not source.is_file():
            reason = "is not a regular file" if source.exists() else "there is no such file"
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
                    names = _images_of(text)
                    more = f"\n{digest_of(names)}" if names else ""
                    yield Line(number, text, _digest(f"{base}\n{number}\n{text}{more}"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise UsageError(subject, reason, "give another file to --batch") from None


def parse(line: Line, common: BatchSettings) -> BatchPrompt:
    """What a line asks for: a JSON text is a prompt; an object holds one, or messages, and what goes with it.

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
    if "id" in values and not _is_id(values["id"]):
        raise UsageError(subject, "has an id that is neither a text nor a whole number", "")
    try:
        own = _own_settings(values)
        settings = vars(common.config) | own
        if own.get("seed") is None:
            seed = common.config.seed
            settings["seed"] = None if seed is None else (seed + line.number) % (1 << 63)
        return BatchPrompt(
            _messages(values, common),
            "messages" not in values,
            check_images(values.get("images", [])),
            generation_config(**settings),
            grammar_of_line(values) or common.grammar,
        )
    except UsageError as error:
        reason = f"{error.subject.removeprefix('--').replace('-', '_')} {error.reason}"
        raise UsageError(subject, reason, error.remedy) from None


def _own_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a line has for itself, by their fields; errors are about their keys."""
    own = {}
    for key, row in SETTINGS.items():
        if key in values:
            value = values[key]
            if (expected := expected_in_json(row, value)) is not None:
                raise UsageError(key, f"{in_json(value)} is not {expected}", f"write {expected}")
            own[row.name] = from_json(row, value)
    return own


def _messages(values: Mapping[str, Any], common: BatchSettings) -> list[Message]:
    """What a line says, from the system's message to the user's last."""
    if "messages" in values:
        if "prompt" in values:
            raise UsageError("messages", "and a prompt are both there", "leave one of them out")
        if common.raw:
            reason = "are for a chat template, which --raw leaves aside"
            raise UsageError("messages", reason, "write a prompt, or leave out --raw")
        messages = check_messages(values["messages"])
    else:
        text = values.get("prompt")
        if not isinstance(text, str):
            raise UsageError("it", "has no prompt that is a text, and no messages", _FORM)
        check_unicode(text, "prompt")
        messages = [{"role": "user", "content": checked(text, "prompt", GIVE_TEXT)}]
    system = values.get("system", common.system)
    if not isinstance(system, str | None):
        raise UsageError("it", "has a system message that is no text", "give a text")
    if messages[0]["role"] == "system":
        if "system" in values:
            reason = "is there, and messages begin with another"
            raise UsageError("system", reason, "leave one of them out")
    elif system is not None:
        check_unicode(system, "system")
        if (checked_system := check_system(system, raw=common.raw)) is not None:
            messages.insert(0, {"role": "system", "content": checked_system})
    return messages


_FORM = 'write {"prompt": "Once upon a time"}, one a line'


def line_id(line: Line) -> dict[str, str | int]:
    """The ``id`` of a line, to be handed back with its answer, if it has one."""
    try:
        values = _load(line.text)
    except (ValueError, RecursionError):
        return {}
    found = values.get("id") if isinstance(values, dict) else None
    return {"id": found} if _is_id(found) else {}


def _images_of(text: str) -> list[object]:
    """What a line names as pictures, before it is known whether it makes sense."""
    if '"images"' not in text:
        return []
    try:
        values = _load(text)
    except (ValueError, RecursionError):
        return []
    found = values.get("images") if isinstance(values, dict) else None
    return found if isinstance(found, list) else []


def _is_id(value: object) -> TypeGuard[str | int]:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _load(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")  # though Python's reader takes it for one

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")  # and one of the two would be left out
        return found

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):
            raise ValueError(f"{digits:.40} is too large a number")
        return value

    return json.loads(text, parse_constant=refuse, parse_float=number, object_pairs_hook=unique)


def _json_of(line: Line, subject: str) -> Any:
    try:
        return _load(line.text)
    except RecursionError:
        raise UsageError(subject, "is nested too deeply", _FORM) from None
    except ValueError as error:
        reason = f"is not JSON ({str(error)[:80]})"
        raise UsageError(subject, reason, _FORM) from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
