"""Requirements 11 to 13: what no request can do, however it asks.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import base64
import builtins
import socket
from typing import Any

import pytest
from live_server import (
    CHAT,
    Live,
    chat_body,
    everything,
    refused,
    request,
    status_of,
)

from lolama_serve.api import pictures


def shown(url: str) -> dict[str, Any]:
    """A chat with a picture."""
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ]
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/a.png",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://example.com/a.png",
        "//example.com/a.png",
        "data:text/html;base64,PGI+",
        "data:image/png,plain",
        "data:image/svg+xml;utf8,<svg/>",
        "data:image/png;base64,!!!!",
        "gopher://x",
        "",
    ],
)
def test_requirement_11_no_address_is_opened(
    live: Live, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def forbidden(*arguments: Any, **named: Any) -> Any:
        opened.append(arguments)
        raise OSError("forbidden")

    asked = len(live.host.asked)
    with live.raw() as connection:
        for place, name in (
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
            (socket, "getaddrinfo"),
            (builtins, "open"),
        ):
            monkeypatch.setattr(place, name, forbidden)
        connection.sendall(request(CHAT, shown(url), "Connection: close"))
        answer = everything(connection)
        monkeypatch.undo()
    assert status_of(answer) == 400
    assert b'"messages[0].content[0].image_url"' in answer
    assert opened == []
    assert len(live.host.asked) == asked


def test_requirement_12_a_body_that_says_it_is_too_large_is_refused_unread(live: Live) -> None:
    answer = live.said(request(CHAT, b"", "Content-Length: 1000000000", "Connection: close"))
    assert status_of(answer) == 413
    assert b"67,108,864" in answer


def test_requirement_12_base64_is_measured_before_it_is_decoded(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = base64.b64decode

    def noted(text: str, **more: Any) -> bytes:
        decoded.append(len(text))
        return real(text, **more)

    monkeypatch.setattr(pictures, "MOST_PICTURE_BYTES", 1_000)
    monkeypatch.setattr(base64, "b64decode", noted)
    refused(live.post(CHAT, shown("data:image/png;base64," + "A" * 2_000)), 413)
    assert decoded == []
    assert live.post(
        CHAT, {**shown("data:image/png;base64," + "A" * 800), "max_tokens": 1}
    ).is_success
    assert decoded == [800]


def test_requirement_12_headers_are_limited(live: Live) -> None:
    answer = live.said(
        request("/health", None, "X-A: " + "a" * 100_000, "Connection: close", method="GET")
    )
    assert status_of(answer) == 431
    slowly = [f"X-{number}: {'a' * 1_000}" for number in range(60)]
    with live.raw(request("/health", None, *slowly, method="GET")[:-2]) as connection:
        assert status_of(everything(connection)) == 400  # no end of them comes


TEMPLATE = "{{ cycler.__init__.__globals__.os.system('true') }}"


@pytest.mark.parametrize(
    "field",
    [
        "chat_template",
        "template",
        "jinja",
        "prompt_template",
        "tokenizer",
        "system_template",
        "jinja_env",
    ],
)
@pytest.mark.parametrize("place", ["body", "chat_template_kwargs", "message", "tool"])
def test_requirement_13_no_request_brings_a_template(live: Live, field: str, place: str) -> None:
    asked = len(live.host.asked)
    body = chat_body("Hi")
    tool = {"type": "function", "function": {"name": "look", field: TEMPLATE}}
    if place == "body":
        body[field] = TEMPLATE
    elif place == "message":
        body["messages"][0][field] = TEMPLATE
    elif place == "tool":
        body["tools"] = [tool]
    else:
        body["chat_template_kwargs"] = {"enable_thinking": False, field: TEMPLATE}
    assert field in refused(live.post(CHAT, body))["message"]
    assert len(live.host.asked) == asked


def test_requirement_13_a_text_that_looks_like_a_template_is_text(live: Live) -> None:
    answer = live.chat(TEMPLATE, max_tokens=1)
    assert answer.is_success
    assert live.host.asked[-1]["messages"][0]["content"] == TEMPLATE
    told = live.post("/apply-template", chat_body("{{ 7 * 7 }}")).json()["prompt"]
    assert "{{ 7 * 7 }}" in told
