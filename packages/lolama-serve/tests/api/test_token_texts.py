"""Tokens and their log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
