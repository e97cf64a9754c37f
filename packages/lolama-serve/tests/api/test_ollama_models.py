"""What models are here, as ollama tells it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from served_demo import FACTS, SWITCH, DemoHost
from starlette.testclient import TestClient

from lolama_serve.__about__ import __version__

DETAILS = {
    "parent_model": "",
    "format": "safetensors",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "2.0K",
    "quantization_level": "bfloat16",
}


def test_the_models_that_are_here_are_listed(client: TestClient) -> None:
    assert client.get("/api/tags").json() == {
        "models": [
            {
                "name": "demo",
                "model": "demo",
                "digest": "",
                "modified_at": "2023-11-14T22:13:20+00:00",
                "size": 4_000,
                "details": DETAILS,
            }
        ]
    }


@pytest.mark.parametrize(
    ("parameters", "told"),
    [(999, "999"), (1_100_048_384, "1.1B"), (494_000_000, "494.0M"), (2e12, "2.0T")],
)
def test_a_number_of_parameters_in_short(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, parameters: float, told: str
) -> None:
    monkeypatch.setitem(FACTS, "parameters", int(parameters))
    [model] = client.get("/api/tags").json()["models"]
    assert model["details"]["parameter_size"] == told


def test_a_gguf_file_and_its_scheme_are_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FACTS, "files", ["model.Q4_K_M.gguf"])
    monkeypatch.setitem(FACTS, "scheme", "gguf")
    details = client.get("/api/tags").json()["models"][0]["details"]
    assert (details["format"], details["quantization_level"]) == ("gguf", "gguf")


def test_what_is_known_of_a_model_is_shown(client: TestClient, host: DemoHost) -> None:
    host.template_end = SWITCH
    client.post("/api/generate", json={"model": "demo"})  # which loads it
    shown = client.post("/api/show", json={"model": "demo:latest", "verbose": True}).json()
    assert shown["details"] == DETAILS
    assert shown["template"].startswith("{{- bos_token -}}")
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "general.parameter_count": 2_000,
        "llama.context_length": 512,
    }
    assert client.post("/api/show", json={"model": "nope"}).status_code == 404


def test_a_model_is_shown_without_being_loaded(
    client_of: Callable[..., TestClient], host: DemoHost
) -> None:
    shown = client_of(models=[]).post("/api/show", json={"model": "demo"}).json()
    assert (shown["template"], shown["capabilities"]) == ("", ["completion"])
    assert host.loads == []


def test_models_in_memory_are_listed(client_of: Callable[..., TestClient]) -> None:
    client = client_of(models=[], sleep_idle=60)
    assert client.get("/api/ps").json() == {"models": []}
    client.post("/api/generate", json={"model": "demo"})
    [model] = client.get("/api/ps").json()["models"]
    leaves = datetime.fromisoformat(model.pop("expires_at")) - datetime.now(UTC)
    assert 50 < leaves.total_seconds() <= 60
    assert model == {
        "name": "demo",
        "model": "demo",
        "digest": "",
        "size": 1_000,
        "size_vram": 0,
        "details": DETAILS,
        "context_length": 512,
    }


def test_a_model_that_stays_has_no_time_to_leave_at(client: TestClient) -> None:
    client.post("/api/generate", json={"model": "demo"})
    assert "expires_at" not in client.get("/api/ps").json()["models"][0]


def test_the_version_is_that_of_the_package(client: TestClient) -> None:
    assert client.get("/api/version").json() == {"version": __version__}


@pytest.mark.parametrize("path", ["pull", "push", "create", "copy", "delete"])
def test_no_request_changes_which_models_are_here(client: TestClient, path: str) -> None:
    method = "DELETE" if path == "delete" else "POST"
    answer = client.request(method, f"/api/{path}", json={"model": "demo"})
    assert answer.status_code == 403
    assert "lolama pull" in answer.json()["error"]
    described = client.get("/openapi.json").json()["paths"][f"/api/{path}"]
    assert [*described] == [method.lower()]
