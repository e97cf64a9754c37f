"""Requirements 17 to 19: whose programs and pages may use a server.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faulty_host import FaultyHost
from live_server import (
    CHAT,
    Live,
    chat_body,
    refused,
    request,
    serving,
    status_of,
)
from starlette.routing import Route
from starlette.testclient import TestClient

from lolama_core.protocols.errors import UsageError
from lolama_serve import ServeOptions, make_app, serve
from lolama_serve.guard import PUBLIC_PATHS

KEY = "a secret"


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    """A server with two keys, which pages of one origin may use."""
    options: dict[str, Any] = {
        "api_keys": ["another", KEY],
        "cors_origins": ["https://app.example"],
    }
    with serving(parallel=2, allowed_hosts=["box.example"], **options) as started:
        yield started


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8000", True),
        ("https://app.example", True),
        ("https://app.example.evil.com", False),
        ("https://evil.com", False),
        ("http://localhost.evil.com", False),
        ("http://[::1", False),
        ("null", False),
        ("file://localhost", False),
    ],
)
def test_requirement_17_only_pages_of_known_origins_use_the_server(
    locked: Live, origin: str, allowed: bool
) -> None:
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}
    expected = origin if allowed else None
    # Browsers ask without the key.
    asked = {"Access-Control-Request-Method": "POST", "Origin": origin}
    with TestClient(
        make_app(locked.host, locked.own.options), base_url="http://127.0.0.1"
    ) as client:
        preflight = client.options(CHAT, headers=asked)
        assert preflight.headers.get("Access-Control-Allow-Origin") == expected
    for stream in (False, True):
        answer = locked.post(CHAT, chat_body(max_tokens=1, stream=stream), headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert answer.headers.get("Access-Control-Allow-Origin") == expected
        assert answer.headers["Vary"] == "Origin"
        assert ("CORS origin" in answer.text) is not allowed


def test_requirement_17_a_page_of_any_origin_has_no_credentials(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(models=[], cors_origins=["*", "https://app.example"])
    for origin, credentials in (("https://other.example", None), ("https://app.example", "true")):
        answer = client.get("/health", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers.get("Access-Control-Allow-Credentials") == credentials


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("box.example:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        ("[", 403),
        ("[::1", 403),
    ],
)
def test_requirement_17_only_names_of_this_server_are_answered(
    locked: Live, host: str, status: int
) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = locked.said(head.encode())
    assert status_of(answer) == status
    assert (b"allowed host" in answer) is (status == 403)


def test_requirement_18_every_route_but_the_public_ones_needs_a_key(locked: Live) -> None:
    app = make_app(locked.host, locked.own.options)
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) >= 20
    for route in routes:
        path = route.path.replace("{name:path}", "demo")
        for method in sorted((route.methods or set()) - {"HEAD"}):
            head = request(
                path, b"{}" if method == "POST" else None, "Connection: close", method=method
            )
            status = status_of(locked.said(head))
            assert (status == 401) is (path not in PUBLIC_PATHS), (method, path, status)
            with_key = head.replace(b"Host:", b"X-Api-Key: " + KEY.encode() + b"\r\nHost:")
            assert status_of(locked.said(with_key)) != 401, (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-Api-Key": KEY},
        {"Authorization": "Bearer another"},
        {"Authorization": "Basic eHg6eHg=", "X-Api-Key": KEY},
    ],
)
def test_requirement_18_a_key_comes_as_bearer_or_x_api_key(
    locked: Live, headers: dict[str, str]
) -> None:
    assert locked.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"X-Api-Key": ""},
    ],
)
def test_requirement_18_anything_else_is_no_key(locked: Live, headers: dict[str, str]) -> None:
    error = refused(locked.get("/v1/models", headers=headers), 401)
    assert error["type"] == "authentication_error"
    assert KEY not in json.dumps(error)


def test_requirement_19_nobody_else_reaches_a_server_unless_asked_and_with_a_key() -> None:
    assert ServeOptions().host == "127.0.0.1"
    host = FaultyHost()
    for address in ("0.0.0.0", "::", "192.0.2.1", "127.0.0.1, 0.0.0.0", "example.org"):
        with pytest.raises(UsageError, match="no key"):
            serve(host, ServeOptions(host=address, port=0))
    assert host.loads == []
