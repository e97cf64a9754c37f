"""Models that are loaded once, and sessions with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lolama import GenerationConfig, wiring
from lolama_cli.chat.model import ChatModel
from lolama_cli.chat.session import Session

GREEDY = GenerationConfig.greedy(max_new_tokens=40)


@cache
def model(name: str | Path = "demo", *, raw: bool = False) -> ChatModel:
    files = wiring.resolve(name)
    tokenizer = wiring.tokenizer_of(files)
    return ChatModel(files, tokenizer, lambda: wiring.load_files(files, device="cpu"), raw=raw)


def session(name: str | Path = "demo", *, raw: bool = False, **fields: Any) -> Session:
    """A new one; what an earlier one ran is forgotten."""
    chosen = model(name, raw=raw)
    assert chosen.generator.prefix_cache is not None
    chosen.generator.prefix_cache.clear()
    return Session(**{"model": chosen, "config": GREEDY, **fields})


def say(chat: Session, text: str) -> str:
    return "".join(chat.ask(text))
