"""``/apply-template``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def test_a_template_is_shown_as_it_writes_with_the_beginning_of_a_reply_or_without(
    client: TestClient,
) -> None:
    def written(**more: Any) -> str:
        body = {"messages": [{"role": "user", "content": "Hello"}], **more}
        prompt: str = client.post("/apply-template", json=body).json()["prompt"]
        return prompt

    whole, told = written(), written(add_generation_prompt=False)
    assert "Hello" in told
    assert whole.startswith(told)
    assert len(whole) > len(told)


def test_the_parts_of_a_character_are_bytes_and_a_word_keeps_its_space(client: TestClient) -> None:
    text = "a dog, \N{MAHJONG TILE RED DRAGON}"
    body = {"content": text, "with_pieces": True}
    pieces = [one["piece"] for one in client.post("/tokenize", json=body).json()["tokens"]]
    joined = b"".join(
        piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces
    )
    assert joined.decode().strip() == text
    assert any(isinstance(piece, list) for piece in pieces)
