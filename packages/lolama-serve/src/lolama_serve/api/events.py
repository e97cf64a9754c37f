"""Server-sent events, as OpenAI's and llama.cpp's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lolama_serve.http import to_json

ENDED = b"data: [DONE]\n\n"
"""The last event of a stream of OpenAI."""


def event(facts: Mapping[str, Any]) -> bytes:
    """An event with JSON as its data."""
    return b"data: " + to_json(facts) + b"\n\n"
