"""``/v1/models``: names, other names and tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from served_demo import DemoHost
    from starlette.testclient import TestClient


def test_a_model_is_found_by_each_of_its_names_and_answers_by_the_first(
    client_of: Callable[..., TestClient], host: DemoHost
) -> None:
    host.aliases, host.tags = ("small",), ("stories",)
    client = client_of()
    [told] = client.get("/v1/models").json()["data"]
    assert (told["id"], told["aliases"], told["tags"]) == ("demo", ["demo", "small"], ["stories"])
    assert client.get("/v1/models/small").json()["id"] == "demo"
    body = {"model": "small", "max_tokens": 1, "prompt": "Once"}
    assert client.post("/v1/completions", json=body).json()["model"] == "demo"
    assert client.get("/v1/models/other").status_code == 404
