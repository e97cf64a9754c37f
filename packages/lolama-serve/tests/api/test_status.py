"""``/metrics``, ``/props`` and ``/slots``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.mark.parametrize("name", ["metrics", "slots"])
def test_a_server_may_tell_nothing_of_what_it_does(
    client_of: Callable[..., TestClient], name: str
) -> None:
    assert client_of().get(f"/{name}").status_code == 200
    refused = client_of(**{name: False}).get(f"/{name}")
    assert refused.status_code == 501
    assert refused.json()["error"]["type"] == "not_supported_error"


def test_metrics_say_since_when_they_count(client: TestClient) -> None:
    [name] = [
        name for name, _ in client.get("/metrics").headers.raw if name[:7].lower() == b"process"
    ]
    assert name == b"Process-Start-Time-Unix"
    since = int(client.get("/metrics").headers["Process-Start-Time-Unix"])
    assert 1_700_000_000 < since < 1 << 33


@pytest.mark.parametrize("path", ["/props", "/slots"])
def test_who_looks_at_a_model_keeps_it_not_from_leaving(
    client_of: Callable[..., TestClient], path: str
) -> None:
    client = client_of()
    client.get(path)  # it is loaded now
    pool = client.app.state.server.pool  # type: ignore[attr-defined] # of starlette
    before = pool.loaded["demo"].used
    client.get(path)
    assert pool.loaded["demo"].used == before
    client.post("/tokenize", json={"content": "Once"})
    assert pool.loaded["demo"].used > before


@pytest.mark.parametrize(("most", "told"), [(None, -1), (20, 20)])
def test_props_tell_settings_by_llama_cpps_names(
    client_of: Callable[..., TestClient], most: int | None, told: int
) -> None:
    client = client_of(max_tokens=most, settings={"repetition_penalty": 1.3})
    params = client.get("/props").json()["default_generation_settings"]["params"]
    assert (params["n_predict"], params["repeat_penalty"]) == (told, 1.3)
    body = {"prompt": "Once", "n_predict": 1}
    answered = client.post("/completion", json=body).json()["generation_settings"]
    assert params.keys() == answered.keys()
