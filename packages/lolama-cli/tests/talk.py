"""Models that are loaded once, and sessions with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lolama import GenerationConfig, names, wiring
from lolama_cli.chat.model import ChatModel
from lolama_cli.chat.session import Session
from lolama_core.protocols import CausalLM

GREEDY = GenerationConfig.greedy(max_new_tokens=40)


@cache
def model(name: str | Path = "demo", *, raw: bool = False) -> ChatModel:
    """A model in float32: in sixteen bits a prompt and a reply may be rounded in different ways."""
    files = names.resolve(name)
    tokenizer = wiring.tokenizer_of(files)

    def load() -> CausalLM:
        return wiring.load_files(files, device="cpu", dtype="float32")

    return ChatModel(files, tokenizer, load, raw=raw)


@dataclass
class LocalSession(Session):
    """A session with a model of this process."""

    model: ChatModel


def session(name: str | Path = "demo", *, raw: bool = False, **fields: Any) -> LocalSession:
    """A new one; what an earlier one ran is forgotten."""
    chosen = model(name, raw=raw)
    assert chosen.generator.prefix_cache is not None
    chosen.generator.prefix_cache.clear()
    return LocalSession(**{"model": chosen, "config": GREEDY, **fields})


def say(chat: Session, text: str) -> str:
    """Ask, and tell what is to be told of the reply; the reply."""
    reply = "".join(chat.ask(text))
    for remark in chat.remarks:
        chat.notice(remark)
    return reply
