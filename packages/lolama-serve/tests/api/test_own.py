"""`/lolama/server` and `/lolama/generate`: what lolama's own commands ask."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from served_demo import DemoHost, DemoModel
from starlette.testclient import TestClient

import lolama_serve.http
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.serving import ReplyPart, ServedPrompt
from lolama_core.protocols.serving_commands import (
    CalledModel,
    CommandGrammar,
    NamedPicture,
    Turn,
)
from lolama_core.protocols.types import JSON

ASKED: dict[str, Any] = {
    "model": "demo",
    "turns": [{"role": "user", "text": "What is two plus three?"}],
    "settings": {"temperature": 0.0, "max_new_tokens": 40},
}


class CommandDemo(DemoModel):
    """The built-in model for commands; what it is asked is noted."""

    command_facts: Mapping[str, JSON] = {
        "has_template": True,
        "sees_pictures": False,
        "thinks": False,
    }

    def __init__(self, name: str, host: CommandDemoHost) -> None:
        super().__init__(name, host)
        self.facts = {**self.facts, "dtype": "float32"}
        self.commands = host

    def command_prompt(
        self,
        turns: Sequence[Turn],
        pictures: Sequence[NamedPicture] = (),
        *,
        raw: bool = False,
        alone: bool = False,
        thinking: bool | None = None,
        image_mode: str | None = None,
        most: int | None = None,
        grammar: CommandGrammar | None = None,
    ) -> ServedPrompt:
        asked = {"turns": turns, "pictures": pictures, "most": most, "grammar": grammar}
        self.commands.asked.append(asked)
        if self.commands.refusal is not None:
            raise self.commands.refusal
        text = turns[-1].text
        if raw:
            return self.text_prompt(text)
        return self.chat_prompt([{"role": "user", "content": text}])


class CommandDemoHost(DemoHost):
    """Models that answer commands."""

    version, store = "1.2", "here"
    refusal: Exception | None = None
    loading: threading.Event | None = None

    def called(self, name: str, place: str | None) -> CalledModel:
        if name not in self.known:
            raise UsageError(f"model {name!r}", "is not one that the server has", "start it")
        return CalledModel(
            name=name, identity={"model": [name, place]}, recommended={"top_k": 7}, notice="n"
        )

    def load(self, name: str) -> CommandDemo:
        if self.loading is not None:
            assert self.loading.wait(60)
        self.loads.append(name)
        return CommandDemo(name, self)


@pytest.fixture
def host() -> CommandDemoHost:
    return CommandDemoHost()


def events(client: TestClient, **changes: Any) -> list[dict[str, Any]]:
    """All lines of an answer that are not blank."""
    answer = client.post("/lolama/generate", json={**ASKED, **changes})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines() if line]


def test_the_server_tells_of_itself_and_of_a_model(client: TestClient) -> None:
    told = client.get("/lolama/server").json()
    assert (told["lolama"], told["protocol"], told["store"]) == ("1.2", 1, "here")
    assert (told["rows"], told["max_tokens"]) == (68, None)
    named = client.get("/lolama/server", params={"model": "demo", "place": "/x"}).json()
    assert named == {
        **told,
        "model": {
            "identity": {"model": ["demo", "/x"]},
            "sees_pictures": False,
            "recommended": {"top_k": 7},
            "notice": "n",
        },
    }
    missing = client.get("/lolama/server", params={"model": "other"}).json()
    error = missing.pop("error")
    assert missing == told
    assert error["subject"] == "model 'other'"
    assert (error["kind"], error["exit_code"]) == ("UsageError", 2)


def test_an_answer_comes_in_pieces_and_as_a_whole(client: TestClient) -> None:
    model, prompt, *pieces, end = events(client)
    facts = {"has_template": True, "sees_pictures": False, "thinks": False}
    where = {"device": "cpu", "dtype": "float32", "context": 512}
    assert model["model"].pop("waited") >= 0
    assert model == {"model": {**facts, **where}}
    assert [*end] == ["end"]
    whole = end["end"]
    assert whole["text"] == "".join(piece["text"] for piece in pieces) == "Two plus three is five."
    assert len(whole["ids"]) == sum(piece["tokens"] for piece in pieces)
    assert prompt == {"prompt": whole["prompt_tokens"]}
    assert (whole["finish_reason"], whole["context_full"]) == ("eos", False)
    assert whole["thinking"] is None
    assert whole["logprobs"] is None
    assert isinstance(whole["seed"], int)


def test_a_request_may_wait_for_the_model_or_the_prompt_alone(
    client: TestClient, host: CommandDemoHost
) -> None:
    [model] = events(client, until="model", turns=[])
    assert [*model] == ["model"]
    assert host.asked == []
    told = events(client, until="prompt", limited=False)
    assert [*map(list, told)] == [["model"], ["prompt"]]
    assert host.asked[0]["most"] is None
    events(client)
    assert host.asked[-2]["most"] == 512  # the last one is the chat_prompt of the same


def test_a_thought_is_told_apart(client: TestClient, host: CommandDemoHost) -> None:
    host.parts = [ReplyPart("thought", "hm"), ReplyPart("text", "five")]
    told = events(client)
    assert {"thought": "hm", "tokens": 1} in told
    assert (told[-1]["end"]["text"], told[-1]["end"]["thinking"]) == ("five", "hm")


def test_log_probabilities_have_texts(client: TestClient) -> None:
    whole = events(client, settings={"max_new_tokens": 2, "logprobs": 2, "seed": 3})[-1]["end"]
    assert whole["seed"] == 3
    assert [one["id"] for one in whole["logprobs"]] == whole["ids"]
    for one in whole["logprobs"]:
        assert one["best"][0]["logprob"] >= one["logprob"]
        assert one["text"]
        assert len(one["best"]) == 2


def test_a_bias_is_for_the_token_of_its_number(client: TestClient) -> None:
    first = events(client)[-1]["end"]["ids"][0]
    settings = {**ASKED["settings"], "logit_bias": {str(first): -1e6}}
    assert events(client, settings=settings)[-1]["end"]["ids"][0] != first
    [*_, failed] = events(client, settings={"logit_bias": {"x": 1}})
    assert failed["error"]["subject"] == "logit_bias"


@pytest.mark.parametrize(("wanted", "full"), [(10_000, True), (5, False)])
def test_a_context_that_is_full_is_told(
    client_of: Callable[..., TestClient], wanted: int, full: bool
) -> None:
    client = client_of(context=20)
    settings = {"max_new_tokens": wanted, "ignore_eos": True}
    whole = events(client, settings=settings)[-1]["end"]
    assert whole["context_full"] is full
    assert len(whole["ids"]) == min(wanted, 20 - whole["prompt_tokens"])


def test_the_most_tokens_of_a_server_are_no_full_context(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(max_tokens=3)
    whole = events(client, settings={"max_new_tokens": 9_999, "ignore_eos": True})[-1]["end"]
    assert (len(whole["ids"]), whole["context_full"]) == (3, False)


def test_a_prompt_that_fills_the_context_has_an_answer_without_a_token(
    client_of: Callable[..., TestClient], client: TestClient
) -> None:
    length = events(client, until="prompt")[-1]["prompt"]
    whole = events(client_of(context=length))[-1]["end"]
    assert (whole["ids"], whole["finish_reason"], whole["context_full"]) == ([], "length", True)


def test_errors_keep_their_parts_and_their_code(client: TestClient, host: CommandDemoHost) -> None:
    host.refusal = ModelError("red.png", "is damaged", "draw it again")
    assert events(client)[-1]["error"] == {
        "kind": "ModelError",
        "subject": "red.png",
        "reason": "is damaged",
        "remedy": "draw it again",
        "exit_code": 3,
    }
    [missing] = events(client, model="other")
    assert missing["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"turns": []}, "turns: is empty"),
        ({"pictures": [{"name": "x", "data": "AA=="}] * 65}, "64 at most"),
        ({"pictures": [{"name": "x", "data": "!"}]}, "is not base64"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: TestClient, changes: dict[str, Any], words: str
) -> None:
    error = events(client, **changes)[-1]["error"]
    assert words in error["reason"]
    assert error["exit_code"] == 2


def test_an_unknown_field_is_refused_by_its_name(client: TestClient) -> None:
    answer = client.post("/lolama/generate", json={**ASKED, "flavor": 1})
    assert answer.status_code == 400
    assert "flavor" in answer.json()["error"]["message"]


def test_pictures_come_with_their_names(client: TestClient, host: CommandDemoHost) -> None:
    data = base64.b64encode(b"bytes").decode()
    turns = [{"role": "user", "text": "What?", "pictures": 1}]
    events(client, turns=turns, pictures=[{"name": "red.png", "data": data}], until="prompt")
    asked = host.asked[0]
    assert asked["pictures"] == [NamedPicture("red.png", b"bytes")]
    assert asked["turns"] == [Turn("user", "What?", 1)]


def test_a_grammar_is_handed_on(client: TestClient, host: CommandDemoHost) -> None:
    events(client, grammar={"kind": "regex", "source": "[0-9]"}, until="prompt")
    assert host.asked[0]["grammar"] == CommandGrammar("regex", "[0-9]")
    answer = client.post("/lolama/generate", json={**ASKED, "grammar": {"kind": "x", "source": ""}})
    assert answer.status_code == 400


def test_a_full_queue_says_when_to_come_again(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    pool = client.app.state.server.pool  # type: ignore[attr-defined] # of Starlette
    pool.waiting = 68
    [failed] = events(client)
    error = failed["error"]
    assert (error["kind"], error["exit_code"]) == ("queue_full", 6)
    assert error["retry_after"] >= 1


def test_what_nobody_has_foreseen_ends_the_stream_with_an_error(
    client: TestClient, host: CommandDemoHost
) -> None:
    host.failure = RuntimeError("secret")
    error = events(client)[-1]["error"]
    assert "its log says why" in error["reason"]
    assert error["exit_code"] == 1


def test_signs_of_life_come_while_a_model_is_loaded(
    client_of: Callable[..., TestClient],
    host: CommandDemoHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lolama_serve.http, "KEEP_ALIVE", 0.01)
    host.loading = threading.Event()
    client = client_of(models=[])
    with client.stream("POST", "/lolama/generate", json=ASKED) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"\n"
        host.loading.set()
        told = b"".join(pieces)
    assert b'"end"' in told


def test_models_that_answer_no_commands_have_no_such_address() -> None:
    from lolama_serve import ServeOptions, make_app

    with TestClient(make_app(DemoHost(), ServeOptions(models=["demo"]))) as client:
        headers = {"Host": "127.0.0.1"}
        assert client.get("/lolama/server", headers=headers).status_code == 404
