"""Tokens and their log-probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import lolama_core
from lolama_core.protocols.generation import TokenLogprobs
from lolama_core.testing import tiny
from lolama_serve.api.token_texts import completion_logprobs, token_bytes, token_text

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def test_the_bytes_of_tokens_join_to_the_text_and_others_keep_their_space(
    client: TestClient,
) -> None:
    body = {"prompt": "Once upon a time", "n_predict": 12, "n_probs": 5, "temperature": 0}
    found = client.post("/completion", json=body).json()
    told = found["completion_probabilities"]
    assert bytes(byte for one in told for byte in one["bytes"]).decode() == found["content"]
    assert "".join(one["token"] for one in told) == found["content"]
    best = [other["token"] for one in told for other in one["top_logprobs"]]
    assert any(text.startswith(" ") for text in best)


def test_a_piece_keeps_the_space_that_a_text_would_lose_at_its_beginning() -> None:
    vocabulary = {"<unk>": 0, "▁a": 1, "b": 2}
    tokenizer = lolama_core.Tokenizer(tiny.with_pieces(vocabulary))
    model: Any = SimpleNamespace(
        tokenizer=tokenizer, token_bytes=lolama_core.token_bytes(tokenizer).texts
    )
    assert tokenizer.decode([1]) == "a"
    assert [token_text(model, one) for one in (1, 2)] == [" a", "b"]
    assert token_bytes(model, 1, " a") == [*b" a"]
    model.token_bytes = None
    assert token_text(model, 1) == "a"


def test_a_part_of_a_character_stands_where_the_character_begins() -> None:
    pieces = [b"a", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80b", b"c"]
    model: Any = SimpleNamespace(tokenizer=None, token_bytes=pieces)
    found = [TokenLogprobs(one, -1.0, ()) for one in range(len(pieces))]
    told = completion_logprobs(found, model, 3)
    text = "..." + b"".join(pieces).decode()
    assert told["text_offset"] == [3, 4, 4, 5, 5, 7]
    assert text[7] == "c"
