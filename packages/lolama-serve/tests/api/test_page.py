"""The pages at ``/`` and ``/inside``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from lolama_serve.api.page import FILES

if TYPE_CHECKING:
    from starlette.testclient import TestClient

STATUS = ("/health", "/metrics", "/props", "/slots")


def test_the_page_tells_the_address_by_which_it_was_reached(client: TestClient) -> None:
    text = client.get("/", headers={"Host": "localhost:1234"}).text
    assert "curl http://localhost:1234/v1/chat/completions" in text
    assert 'base_url="http://localhost:1234/v1"' in text
    assert "OLLAMA_HOST=http://localhost:1234<" in text
    assert "127.0.0.1:8080" not in text


def test_the_pages_need_nothing_but_their_own_files(client: TestClient) -> None:
    served = {}
    for path, (_, media_type, _) in FILES.items():
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(media_type)
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        served[path] = answer.text
    for path, text in served.items():
        # The policy forbids all three.
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", text), path
        for wanted in re.findall(r'(?:src|href)="(/[^"]*)"', text):
            assert wanted in {*FILES, "/v1/models", "/openapi.json", *STATUS}, (path, wanted)
        for wanted in re.findall(r'from "\./([^"]+)"', text):
            assert f"/{wanted}" in FILES, (path, wanted)


def test_each_part_has_its_place_on_the_page(client: TestClient) -> None:
    page, script = client.get("/inside").text, client.get("/parts.js").text
    places = set(re.findall(r'place\("([\w-]+)"\)', script))
    assert len(places) > 8
    assert places <= set(re.findall(r'id="([\w-]+)"', page))


def test_a_server_without_pages(client_of: Callable[..., TestClient]) -> None:
    client = client_of(page=False)
    for path in FILES:
        assert client.get(path).status_code == 404
