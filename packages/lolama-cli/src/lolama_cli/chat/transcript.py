"""Conversations as files: JSON, in a format that stays.

``"schema": "lolama.chat/1"``. Keys may be added to it; none changes its meaning or goes without a new number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lolama_cli.chat.conversation import (
    INTERRUPTED,
    Conversation,
    Exchange,
    PictureFile,
    ToolStep,
)
from lolama_cli.regular_files import check_regular
from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import (
    LolamaError,
    ModelError,
    ResourceError,
    UsageError,
    exists_already,
)
from lolama_core.protocols.tools import ToolCall
from lolama_core.protocols.types import JSON
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.protocols.whole_file import write_whole

SCHEMA = "lolama.chat/1"
_REASONS = ("eos", "stop", "length", INTERRUPTED)
_MOST_TURNS = 100_000
_REMEDY = "give a file that /save wrote"


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What a file holds.

    Attributes:
        model: The name of the model that was talked with.
        settings: Names as for ``/set``, and values.
        conversation: What was said.
    """

    model: str
    settings: Mapping[str, JSON]
    conversation: Conversation


def to_json(transcript: Transcript) -> dict[str, JSON]:
    """The JSON object of a transcript."""
    turns: list[JSON] = []
    for exchange in transcript.conversation.exchanges:
        asked: dict[str, JSON] = {"role": "user", "text": exchange.question}
        if exchange.pictures:
            asked["pictures"] = [{"path": p.path, "sha256": p.digest} for p in exchange.pictures]
        replied: dict[str, JSON] = {
            "role": "assistant",
            "text": exchange.reply,
            "finish_reason": exchange.finish_reason,
            "model": exchange.model,
            "seed": exchange.seed,
        }
        if exchange.steps:
            replied["tool_steps"] = [_step(step) for step in exchange.steps]
        turns += [asked, replied]
    return {
        "schema": SCHEMA,
        "model": transcript.model,
        "settings": dict(transcript.settings),
        "system": transcript.conversation.system,
        "turns": turns,
    }


def _step(step: ToolStep) -> JSON:
    calls: list[JSON] = [
        {
            "id": call.id,
            "name": call.name,
            "arguments": cast("dict[str, JSON]", dict(call.arguments)),
            "result": result,
        }
        for call, result in zip(step.calls, step.results, strict=True)
    ]
    return {"text": step.text, "calls": calls}


def from_json(data: Mapping[str, JSON], subject: str) -> Transcript:
    """The transcript in a JSON object; keys that are not known are left alone.

    Args:
        data: The object.
        subject: What errors name as their place.

    Raises:
        UsageError: for another schema, or values that make no sense, with their place.
    """
    read = _Reader(subject)
    schema = data.get("schema")
    if schema != SCHEMA:
        shown = f"has the schema {schema!r:.60}" if isinstance(schema, str) else "has no schema"
        raise read.refused(f"{shown}, expected {SCHEMA!r}")
    turns = read.list_of(data.get("turns"), "turns")
    if len(turns) > 2 * _MOST_TURNS:
        raise read.refused(f"has {len(turns):,} turns, more than {2 * _MOST_TURNS:,}")
    if len(turns) % 2:
        raise read.refused(f"has {len(turns)} turns, and no reply to the last")
    exchanges = [
        read.exchange(turns[index], turns[index + 1], index) for index in range(0, len(turns), 2)
    ]
    system, settings = data.get("system"), data.get("settings", {})
    if not isinstance(settings, dict):
        raise read.refused("settings is no object")
    return Transcript(
        model=read.text(data.get("model", ""), "model"),
        settings=settings,
        conversation=Conversation(
            system=None if system is None else read.text(system, "system"),
            exchanges=tuple(exchanges),
        ),
    )


class _Reader:
    """Checks values, and says where one is wrong."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def refused(self, reason: str) -> UsageError:
        return UsageError(self._subject, reason, _REMEDY)

    def list_of(self, value: JSON, place: str) -> list[JSON]:
        if not isinstance(value, list):
            raise self.refused(f"{place} is no list")
        return value

    def text(self, value: JSON, place: str) -> str:
        if not isinstance(value, str):
            raise self.refused(f"{place} is no text")
        if "\0" in value:
            raise self.refused(f"{place} holds a NUL character")
        return value

    def turn(self, value: JSON, role: str, place: str) -> dict[str, JSON]:
        value = self.object(value, place)
        if value.get("role") != role:
            raise self.refused(f"{place} has the role {value.get('role')!r:.40}, expected {role!r}")
        return value

    def exchange(self, asked: JSON, replied: JSON, index: int) -> Exchange:
        first, second = f"turns[{index}]", f"turns[{index + 1}]"
        question = self.turn(asked, "user", first)
        reply = self.turn(replied, "assistant", second)
        reason = self.text(reply.get("finish_reason", "eos"), f"{second}.finish_reason")
        if reason not in _REASONS:
            raise self.refused(f"{second}.finish_reason is {reason!r:.40}")
        seed = reply.get("seed")
        if seed is not None and not is_integer(seed):
            raise self.refused(f"{second}.seed is no whole number")
        pictures = self.list_of(question.get("pictures", []), f"{first}.pictures")
        return Exchange(
            question=self.text(question.get("text"), f"{first}.text"),
            pictures=tuple(
                self.picture(value, f"{first}.pictures[{n}]") for n, value in enumerate(pictures)
            ),
            steps=tuple(
                self.step(value, f"{second}.tool_steps[{n}]")
                for n, value in enumerate(
                    self.list_of(reply.get("tool_steps", []), f"{second}.tool_steps")
                )
            ),
            reply=self.text(reply.get("text"), f"{second}.text"),
            finish_reason=reason,
            model=self.text(reply.get("model", ""), f"{second}.model"),
            seed=seed,
        )

    def step(self, value: JSON, place: str) -> ToolStep:
        step = self.object(value, place)
        calls, results = [], []
        for n, each in enumerate(self.list_of(step.get("calls"), f"{place}.calls")):
            where = f"{place}.calls[{n}]"
            call = self.object(each, where)
            names = [self.text(call.get(key), f"{where}.{key}") for key in ("id", "name", "result")]
            given = self.object(call.get("arguments"), f"{where}.arguments")
            calls.append(ToolCall(names[0], names[1], given))
            results.append(names[2])
        text = self.text(step.get("text"), f"{place}.text")
        return ToolStep(text=text, calls=tuple(calls), results=tuple(results))

    def object(self, value: JSON, place: str) -> dict[str, JSON]:
        if not isinstance(value, dict):
            raise self.refused(f"{place} is no object")
        return value

    def picture(self, value: JSON, place: str) -> PictureFile:
        value = self.object(value, place)
        path = self.text(value.get("path"), f"{place}.path")
        digest = self.text(value.get("sha256"), f"{place}.sha256")
        return PictureFile(path=path, digest=digest)


def load(path: Path) -> Transcript:
    """Read a transcript.

    Raises:
        UsageError: if the file cannot be read, or is no transcript.
    """
    from lolama.files import read_json

    try:
        return from_json(read_json(path), str(path))
    except ModelError as error:
        raise UsageError(error.subject, error.reason, _REMEDY) from None


def save(path: Path, transcript: Transcript, *, replace: bool) -> None:
    """Write a transcript: whole, or not at all. Nobody else may read it.

    Args:
        path: Where.
        transcript: What.
        replace: Whether a file that is there may be replaced.

    Raises:
        UsageError: if there is one, and it may not; if it is not a regular file, or for what no JSON
            can hold.
        ResourceError: if it cannot be written.
    """
    text = json.dumps(to_json(transcript), ensure_ascii=False, indent=1) + "\n"
    if not is_unicode(text):
        reason = "would hold the path of a picture that is not UTF-8, which no JSON file can"
        raise UsageError(str(path), reason, "rename the picture")
    try:
        check_regular(path, "give another name")
        write_whole(path, text.encode(), replace=replace, mode=0o600)
    except UsageError:
        raise
    except FileExistsError:
        raise exists_already(path, "use /save --force FILE") from None
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError | ValueError) -> LolamaError:
    reason = getattr(error, "strerror", None) or "is no possible file name"
    return ResourceError(str(path), f"cannot be written: {reason}", "give another name")
