"""`/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`, over the built-in model."""

from __future__ import annotations

import json
import math
from itertools import chain
from typing import Any

import pytest
from served_demo import DemoHost
from starlette.testclient import TestClient

from lolama_core.protocols.serving import ReplyPart

CHAT: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "What is two plus three?"}],
    "options": {"temperature": 0},
}
QUESTION = {"model": "demo", "prompt": "What is two plus three?", "options": {"temperature": 0}}
ANSWER = "Two plus three is five."
PARTS = [
    ReplyPart("thought", "hm, "),
    ReplyPart("thought", "so"),
    ReplyPart("text", "Look: "),
    ReplyPart("call", '{"at": 1}', "look", "call_1"),
]


def asked(client: TestClient, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer as a whole."""
    answer = client.post(path, json={**body, "stream": False, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(
    client: TestClient, path: str, body: dict[str, Any], **more: Any
) -> list[dict[str, Any]]:
    """The lines of an answer, which comes as a stream unless a request wants it otherwise."""
    answer = client.post(path, json={**body, **more})
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def refused(client: TestClient, path: str, body: dict[str, Any], **more: Any) -> str:
    """Why a request is refused, in ollama's form."""
    answer = client.post(path, json={**body, **more})
    assert answer.status_code == 400
    [(name, reason)] = answer.json().items()
    assert name == "error"
    return str(reason)


def test_a_chat_as_a_whole(client: TestClient) -> None:
    answer = asked(client, "/api/chat", CHAT)
    assert answer["message"] == {"role": "assistant", "content": ANSWER}
    assert (answer["model"], answer["done"], answer["done_reason"]) == ("demo", True, "stop")
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (9, 7)
    parts = [answer[f"{part}_duration"] for part in ("load", "prompt_eval", "eval")]
    assert all(isinstance(part, int) and part >= 0 for part in parts)
    assert sum(parts) <= answer["total_duration"]


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [("/api/chat", CHAT, "message"), ("/api/generate", QUESTION, "response")],
)
def test_a_stream_adds_up_to_the_whole(
    client: TestClient, host: DemoHost, path: str, body: dict[str, Any], name: str
) -> None:
    host.parts = PARTS[:3] if name == "response" else PARTS
    whole, lines = asked(client, path, body), streamed(client, path, body)
    counts = ("done_reason", "prompt_eval_count", "eval_count", "done")
    assert {one: lines[-1][one] for one in counts} == {one: whole[one] for one in counts}
    assert [line["done"] for line in lines[:-1]] == [False] * (len(lines) - 1)
    told = [line[name] if name == "message" else line for line in [*lines, whole]]
    text = "content" if name == "message" else "response"
    for field in (text, "thinking"):
        *pieces, all_of_it = [one.get(field, "") for one in told]
        assert "".join(pieces) == all_of_it != ""
    *some, every = [one.get("tool_calls", []) for one in told]
    assert [*chain(*some)] == every


def test_thoughts_and_calls_stand_apart(client: TestClient, host: DemoHost) -> None:
    host.parts = PARTS
    function = {"name": "look", "arguments": {"at": 1}}
    assert asked(client, "/api/chat", CHAT)["message"] == {
        "role": "assistant",
        "content": "Look: ",
        "thinking": "hm, so",
        "tool_calls": [{"id": "call_1", "function": function}],
    }


def test_a_question_is_asked_in_the_chat_template(client: TestClient) -> None:
    answer = asked(client, "/api/generate", QUESTION)
    assert (answer["response"], answer["prompt_eval_count"]) == (ANSWER, 9)
    raw = asked(client, "/api/generate", QUESTION, raw=True)
    assert raw["prompt_eval_count"] < 9


def test_options_are_settings(client: TestClient) -> None:
    options = {"temperature": 0, "stop": ["three"]}
    stopped = asked(client, "/api/chat", CHAT, options=options)
    assert (stopped["message"]["content"], stopped["done_reason"]) == ("Two plus ", "stop")
    short = asked(client, "/api/chat", CHAT, options={"temperature": 0, "num_predict": 2})
    assert (short["eval_count"], short["done_reason"]) == (2, "length")
    for no_limit in (-1, -2):
        options = {"temperature": 0, "num_predict": no_limit}
        assert asked(client, "/api/chat", CHAT, options=options)["eval_count"] == 7
    hot = {"temperature": 5.0, "num_predict": 20}
    texts = {
        asked(client, "/api/chat", CHAT, options={**hot, "seed": seed})["message"]["content"]
        for seed in (1, 1, 2)
    }
    assert len(texts) == 2


def test_a_context_is_a_limit_and_never_more_than_there_is(client: TestClient) -> None:
    options = {"temperature": 0, "num_ctx": 12}
    assert asked(client, "/api/chat", CHAT, options=options)["eval_count"] == 3
    both = {**options, "num_predict": 2}
    assert asked(client, "/api/chat", CHAT, options=both)["eval_count"] == 2
    assert "512" in refused(client, "/api/chat", CHAT, options={"num_ctx": 513})
    assert "context size of 9" in refused(client, "/api/chat", CHAT, options={"num_ctx": 9})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"options": {"mirostat": 1}}, "options.mirostat: is not a parameter"),
        ({"options": {"top_p": 7}}, "top_p"),
        ({"context": [1, 2]}, "context: is not a parameter"),
        ({"top_logprobs": 2}, "top_logprobs: needs logprobs"),
        ({"think": "high"}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
    ],
)
def test_what_is_unknown_is_refused_by_name(
    client: TestClient, more: dict[str, Any], reason: str
) -> None:
    assert refused(client, "/api/chat", CHAT, **more).startswith(reason)


def test_a_format_is_kept_to_unless_tools_are_called(client: TestClient, host: DemoHost) -> None:
    asked(client, "/api/chat", CHAT, format="json")
    assert host.grammars == [("json_object", None)]
    tool = {"type": "function", "function": {"name": "look"}}
    assert "tools" in refused(client, "/api/chat", CHAT, format="json", tools=[tool])


def test_log_probabilities_are_told(client: TestClient) -> None:
    whole = asked(client, "/api/chat", CHAT, logprobs=True, top_logprobs=2)
    lines = streamed(client, "/api/chat", CHAT, logprobs=True, top_logprobs=2)
    assert "".join(one["token"] for one in whole["logprobs"]) == ANSWER
    assert [len(one["top_logprobs"]) for one in whole["logprobs"]] == [2] * 6
    told = [*chain(*(line["logprobs"] for line in lines))]
    for one, again in zip(whole["logprobs"], told, strict=True):
        assert one["token"] == again["token"]
        # The second time the prompt is found and not run, which may be rounded differently.
        assert one["logprob"] == pytest.approx(again["logprob"], abs=1e-4)
    assert "logprobs" not in asked(client, "/api/chat", CHAT)


def test_a_name_may_have_the_tag_that_is_everyones(client: TestClient) -> None:
    assert asked(client, "/api/chat", CHAT, model="demo:latest")["model"] == "demo"
    answer = client.post("/api/chat", json={**CHAT, "model": "demo:8b"})
    assert (answer.status_code, [*answer.json()]) == (404, ["error"])


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_request_that_asks_nothing_loads_a_model_or_lets_it_leave(
    client: TestClient, host: DemoHost, path: str
) -> None:
    assert asked(client, path, {"model": "demo"})["done_reason"] == "load"
    assert (host.loads, host.closed) == (["demo"], [])
    assert asked(client, path, {"model": "demo"}, keep_alive=0)["done_reason"] == "unload"
    assert host.closed == ["demo"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_leaves_once_it_has_answered(
    client: TestClient, host: DemoHost, stream: bool
) -> None:
    answer = client.post("/api/chat", json={**CHAT, "stream": stream, "keep_alive": "0s"})
    assert json.loads(answer.text.splitlines()[-1])["done"]
    assert "X-Lolama-Not-Kept" not in answer.headers
    assert host.closed == ["demo"]
    assert asked(client, "/api/chat", CHAT)["message"]["content"] == ANSWER
    assert host.loads == ["demo", "demo"]


def test_how_long_it_stays_otherwise_is_not_promised(client: TestClient, host: DemoHost) -> None:
    for stream in (False, True):
        body = {**CHAT, "stream": stream, "keep_alive": "5m"}
        answer = client.post("/api/chat", json=body)
        assert answer.headers["X-Lolama-Not-Kept"] == "keep_alive"
    assert host.closed == []


def test_a_failure_within_a_stream_is_its_last_line(client: TestClient, host: DemoHost) -> None:
    host.failure = RuntimeError("the test wants it")
    last = streamed(client, "/api/chat", CHAT)[-1]
    assert [*last] == ["error"]
    assert "the test wants it" not in last["error"]


def test_texts_have_vectors(client: TestClient) -> None:
    body = {"model": "demo", "input": ["one", "two plus"]}
    answer = client.post("/api/embed", json=body).json()
    vectors = answer["embeddings"]
    assert len(vectors) == 2
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in vectors)
    one = client.post("/api/embed", json={**body, "input": "one", "truncate": True}).json()
    assert one["embeddings"] == vectors[:1]
    assert 0 < one["prompt_eval_count"] < answer["prompt_eval_count"]
    old = client.post("/api/embeddings", json={"model": "demo:latest", "prompt": "one"}).json()
    assert old == {"embedding": vectors[0]}
    assert "dimensions" in refused(client, "/api/embed", body, dimensions=3)
    assert "context size of 512" in refused(client, "/api/embed", body, input="two " * 600)
