"""The page at ``/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def test_the_page_tells_the_address_by_which_it_was_reached(client: TestClient) -> None:
    text = client.get("/", headers={"Host": "localhost:1234"}).text
    assert "curl http://localhost:1234/v1/chat/completions" in text
    assert 'base_url="http://localhost:1234/v1"' in text
    assert "OLLAMA_HOST=http://localhost:1234<" in text
    assert "127.0.0.1:8080" not in text
