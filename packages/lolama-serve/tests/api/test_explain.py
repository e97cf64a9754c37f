"""`/lolama/explain` and `/lolama/continue`, over a stand-in that knows how to be watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from served_demo import DemoHost, DemoModel, demo
from starlette.testclient import TestClient

import lolama_core
from lolama_core import GenerationConfig, TextGenerator
from lolama_core.protocols.explaining import Explanation, PartsOff

TEXT = "Once upon a time"


class Watched(DemoModel):
    """See `lolama_core.protocols.explaining.ExplainedModel`."""

    @property
    def reference(self) -> Mapping[str, str]:
        return lolama_core.reference_sources()

    def explain(self, text: str, off: PartsOff) -> Explanation:
        model, tokenizer = demo()
        with lolama_core.ablate(model, layers=off.layers, heads=off.heads, neurons=off.neurons):
            return lolama_core.explain(model, tokenizer, tokenizer.encode_ids(text))

    def continued(self, text: str, off: PartsOff, tokens: int) -> str:
        model, tokenizer = demo()
        with lolama_core.ablate(model, layers=off.layers, heads=off.heads, neurons=off.neurons):
            config = GenerationConfig.greedy(max_new_tokens=tokens)
            return TextGenerator(model, tokenizer).generate(text, config).text


@pytest.fixture
def watched(
    host: DemoHost, client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> TestClient:
    """A client of a server whose model can be watched."""
    monkeypatch.setattr(host, "load", lambda name: Watched(name, host))
    return client_of()


def test_a_text_is_explained(watched: TestClient) -> None:
    told = watched.post("/lolama/explain", json={"text": TEXT}).json()
    model, tokenizer = demo()
    expected = lolama_core.explain(model, tokenizer, tokenizer.encode_ids(TEXT))
    assert told["ids"] == [*expected.ids] and told["texts"] == [*expected.texts]
    assert len(told["layers"]) == 6
    assert told["layers"][3]["attention"] == expected.layers[3].attention
    best = expected.layers[5].predictions[-1][0]
    assert told["layers"][5]["predictions"][-1][0] == {
        "id": best.id,
        "text": best.text,
        "probability": best.probability,
    }
    assert told["logits"][0] == [*expected.logits[0]]


def test_parts_are_switched_off(watched: TestClient) -> None:
    whole = watched.post("/lolama/explain", json={"text": TEXT}).json()
    off = {"layers": [1], "heads": [[0, 2]], "neurons": [[2, 7]]}
    without = watched.post("/lolama/explain", json={"text": TEXT, "off": off}).json()
    assert whole["logits"] != without["logits"]
    assert without["layers"][1]["stream"] == without["layers"][0]["stream"]
    texts = [
        watched.post("/lolama/continue", json={"text": TEXT, "tokens": 12, **more}).json()["text"]
        for more in ({}, {"off": off})
    ]
    assert (
        texts[0]
        == TextGenerator(*demo()).generate(TEXT, GenerationConfig.greedy(max_new_tokens=12)).text
    )
    assert texts[1] and texts[1] != texts[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": ""}, ""),
        ({"text": "a" * 4_001}, "text: give 4,000 characters at most"),
        ({"text": TEXT, "off": {"layers": [6]}}, "layer 6: is none of the model's; use 0 to 5"),
        ({"text": TEXT, "off": {"heads": [[0, -1]]}}, "head -1"),
        ({"text": TEXT, "off": {"heads": [[0]]}}, "off.heads"),
        ({"text": TEXT, "off": {"biases": []}}, "off.biases"),
        ({"text": TEXT, "tokens": 0}, "tokens: give 1 to 256"),
        ({"text": TEXT, "tokens": 257}, "tokens: give 1 to 256"),
    ],
)
def test_what_cannot_be_explained(watched: TestClient, body: dict[str, Any], words: str) -> None:
    path = "/lolama/continue" if "tokens" in body else "/lolama/explain"
    answer = watched.post(path, json=body)
    if body["text"]:
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
    else:  # this model begins each text with a token of its own
        assert answer.json()["texts"] == ["<|bos|>"]


def test_a_model_that_cannot_be_watched(client: TestClient) -> None:
    answer = client.post("/lolama/explain", json={"text": TEXT})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "model: demo cannot be watched"


def test_the_code_is_told(watched: TestClient) -> None:
    sources = watched.get("/lolama/reference").json()
    assert {"attention", "rotate", "feed_forward", "forward"} <= set(sources)
    assert sources["attention"].startswith("def attention(")
