"""A stand-in for the models of a server: the built-in one, which lolama-core alone can run.

What it is asked is noted, and its replies can be told as a test wants them: as a thought, text and calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, cast

import lolama_core
from lolama_core import Engine, GenerationConfig, Llama, Tokenizer
from lolama_core.protocols import Constraint
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.serving import (
    GrammarKind,
    ReplyPart,
    ServedName,
    ServedPrompt,
    ToolChoice,
)
from lolama_core.protocols.types import JSON, Message
from lolama_core.text.chat_template import ChatTemplate

THINKS = "{{- '<think></think>' if false else '' -}}"
"""The end of a template whose model may think, and has no switch for that."""

SWITCH = "{{- '<think></think>' if enable_thinking and false else '' -}}"
"""The end of a template that is told whether the model is to think. It writes nothing in either case."""


@lru_cache(maxsize=1)
def demo() -> tuple[Llama, Tokenizer]:
    """The model, once for all tests."""
    return lolama_core.load("demo", dtype="float32")


@lru_cache(maxsize=1)
def bytes_of_tokens() -> Sequence[bytes]:
    """What each of its tokens adds to a text, which takes a while to find out."""
    return lolama_core.token_bytes(demo()[1]).texts


@dataclass
class DemoHost:
    """Serves the built-in model under each of some names; see `lolama_core.protocols.serving.ModelHost`.

    Attributes:
        known: The names.
        parts: What each reply is told as, one at each step and the rest at its end; None for its text.
        failure: Raised at the second step of each reply.
        sees_pictures: Whether it says that it is shown pictures. They change no reply.
        template_end: More of its chat template, such as `SWITCH`.
        aliases: Names that the first of them has besides.
        tags: What is told of it.
        asked: The arguments of each `ServedModel.chat_prompt`, in order.
        grammars: Those of each `ServedModel.constraint`.
        loads: Names that were loaded, in order.
        closed: Names whose memory was let go of, in order.
    """

    known: Sequence[str] = ("demo",)
    parts: Sequence[ReplyPart] | None = None
    failure: Exception | None = None
    sees_pictures: bool = False
    template_end: str = ""
    aliases: Sequence[str] = ()
    tags: Sequence[str] = ()
    asked: list[dict[str, Any]] = field(default_factory=list)
    grammars: list[tuple[GrammarKind, JSON]] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def names(self) -> list[ServedName]:
        """See `ModelHost`."""
        return [self.find(name) for name in self.known]

    def find(self, name: str) -> ServedName:
        """See `ModelHost`."""
        if name in self.aliases:
            name = self.known[0]
        if name not in self.known:
            raise UsageError("model", "is not here", f"use one of {', '.join(self.known)}")
        first = name == self.known[0]
        return ServedName(
            name=name,
            aliases=self.aliases if first else (),
            tags=self.tags if first else (),
            bytes=1_000,
            created=1_700_000_000,
            facts=FACTS,
        )

    def load(self, name: str) -> DemoModel:
        """See `ModelHost`."""
        self.loads.append(name)
        return DemoModel(name, self)


FACTS: dict[str, JSON] = {
    "family": "llama",
    "parameters": 2_000,
    "bytes": 4_000,
    "dtype": "bfloat16",
    "scheme": None,
    "context_length": 512,
    "files": ["model.safetensors"],
    "vision": False,
}


class DemoModel:
    """The built-in model as a server uses it; see `lolama_core.protocols.serving.ServedModel`."""

    def __init__(self, name: str, host: DemoHost) -> None:
        self.name, self.host = name, host
        self.model, self._tokenizer = demo()
        self.facts: Mapping[str, JSON] = {
            **FACTS,
            "path": "/models/demo/model.safetensors",
            "device": "cpu",
            "chat_template": self._tokenizer.chat_template,
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """See `ServedModel`."""
        if not self.host.template_end:
            return self._tokenizer
        tokenizer = copy(self._tokenizer)
        tokenizer._template = ChatTemplate((tokenizer.chat_template or "") + self.host.template_end)
        return tokenizer

    @property
    def sees_pictures(self) -> bool:
        """See `ServedModel`."""
        return self.host.sees_pictures

    @property
    def token_bytes(self) -> Sequence[bytes] | None:
        """See `ServedModel`."""
        return bytes_of_tokens()

    @property
    def context_length(self) -> int:
        """See `ServedModel`."""
        return self.model.max_seq_len

    def engine(self, *, rows: int, cache_bytes: int | None) -> Engine[str]:
        """See `ServedModel`."""
        return Engine(self.model, self.tokenizer, rows=rows, cache_bytes=cache_bytes)

    def settings(self, given: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """See `ServedModel`."""
        recommended = self.model.generation_defaults.sampling
        config = GenerationConfig.sampling().with_recommended(recommended)
        return asdict(config.with_settings(**cast("dict[str, Any]", dict(given))))

    def text_prompt(self, text: str) -> ServedPrompt:
        """See `ServedModel`."""
        ids = self.tokenizer.encode_ids(text)
        return ServedPrompt(ids=ids, positions=len(ids), parser=self._parser())

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        pictures: Sequence[bytes] = (),
        tools: Sequence[Mapping[str, JSON]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_calls: bool = True,
        thinking: bool | None = None,
        continues: bool = False,
    ) -> ServedPrompt:
        """See `ServedModel`. The model reads tools, calls and results as plain text."""
        asked = {
            "messages": [*messages],
            "pictures": [*pictures],
            "tools": [*tools],
            "tool_choice": tool_choice,
            "parallel_calls": parallel_calls,
            "thinking": thinking,
            "continues": continues,
        }
        self.host.asked.append(asked)
        tokenizer = self.tokenizer
        if thinking is not None:
            tokenizer = tokenizer.with_thinking(thinking)
        turns = [_plain(message) for message in messages]
        if tools:
            turns.insert(0, {"role": "system", "content": str(tools)})
        last = turns.pop()["content"] if continues else ""
        ids = tokenizer.ensure_bos(tokenizer.render_chat(turns))
        begun = {"add_special_tokens": False, "split_special_tokens": True}
        ids += self.tokenizer.encode_ids(str(last), **begun) if last else []
        return ServedPrompt(ids=ids, positions=len(ids), parser=self._parser())

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, JSON]] = (),
        reply: bool = True,
    ) -> str:
        """See `ServedModel`."""
        turns = [_plain(message) for message in messages]
        written = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=reply, tokenize=False
        )
        return str(written)

    def constraint(
        self, kind: GrammarKind, source: JSON, prompt: ServedPrompt | None = None
    ) -> Callable[[], Constraint]:
        """See `ServedModel`. It is noted, and keeps replies within nothing."""
        self.host.grammars.append((kind, source))
        return Unbound

    def embedding(self, ids: Sequence[int]) -> list[float]:
        """See `ServedModel`."""
        mean = lolama_core.hidden_states(self.model, ids).mean(0)
        return cast("list[float]", (mean / mean.norm()).tolist())

    def close(self) -> None:
        """See `ServedModel`. The model itself stays, for the next test."""
        self.host.closed.append(self.name)

    def _parser(self) -> Callable[[], Scripted] | None:
        if self.host.parts is None and self.host.failure is None:
            return None
        return lambda: Scripted(self.host.parts, self.host.failure)


class Scripted:
    """Tells a reply as parts that a test wants; see `lolama_core.protocols.serving.ReplyParser`."""

    def __init__(self, parts: Sequence[ReplyPart] | None, failure: Exception | None) -> None:
        self._parts = None if parts is None else [*parts]
        self._failure, self._pushed = failure, 0

    def push(self, text: str) -> list[ReplyPart]:
        """See `ReplyParser`."""
        self._pushed += 1
        if self._failure is not None and self._pushed > 1:
            raise self._failure
        if self._parts is None:
            return [ReplyPart("text", text)] if text else []
        return [self._parts.pop(0)] if self._parts else []

    def finish(self) -> list[ReplyPart]:
        """See `ReplyParser`."""
        return self._parts or []


class Unbound:
    """A grammar that allows everything; see `lolama_core.protocols.Constraint`."""

    def mask(self) -> None:
        """See `Constraint`."""

    def accept(self, token: int) -> None:
        """See `Constraint`."""

    def rollback(self, count: int) -> None:
        """See `Constraint`."""


def _plain(message: Message) -> Message:
    """What the built-in model's template can write of a message."""
    content = message["content"] or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    text = f"{message.get('reasoning_content', '')}{content}{message.get('tool_calls', '')}"
    role = message["role"]
    return {"role": "user" if role == "tool" else role, "content": text}
