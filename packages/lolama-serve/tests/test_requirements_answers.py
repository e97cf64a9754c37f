"""Requirements 6 to 10, 14 and 24: what answers are made of, streamed or not.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from faulty_host import BROKEN, FaultyHost
from live_server import CHAT, Live, chat_body, events_of, read_until, request, serving, until
from served_demo import Unbound, demo

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.serving import ReplyPart
from lolama_serve import http

GREEDY = {"temperature": 0, "ignore_eos": True}
USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with serving(FaultyHost(chunk=8), parallel=2) as started:
        yield started


@pytest.fixture
def live(shared: Live) -> Iterator[Live]:
    """A server with nothing in it, which is well afterwards."""
    yield shared
    shared.host.parts = None
    shared.host.forced.clear()
    shared.well()


def deltas(events: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """What the events add to one answer."""
    choices = [choice for event in events for choice in event["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index]


def content(events: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one answer."""
    return "".join(delta.get("content") or "" for delta in deltas(events, index))


@pytest.mark.parametrize("n", [1, 3])
def test_requirement_06_chunks_are_exactly_those_of_openai(live: Live, n: int) -> None:
    events = live.events(max_tokens=5, n=n, **GREEDY, **USAGE)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    for field in ("id", "created", "model", "system_fingerprint"):
        assert len({event[field] for event in events}) == 1
    *chunks, last = events
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 5 * n
    assert all(len(chunk["choices"]) == 1 and "usage" not in chunk for chunk in chunks)
    for index in range(n):
        role, *texts, end = deltas(events, index)
        assert role == {"role": "assistant", "content": None}
        assert all([*delta] == ["content"] and delta["content"] for delta in texts)
        assert end == {}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert [reason for reason in reasons if reason] == ["length"] * n


def test_requirement_06_without_being_asked_no_chunk_tells_usage(live: Live) -> None:
    assert all(event["choices"] for event in live.events(max_tokens=2))


def test_requirement_06_an_error_after_the_start_is_an_event(live: Live) -> None:
    answer = live.chat(BROKEN, stream=True)
    assert answer.status_code == 200
    events = [line for line in answer.text.split("\n\n") if line]
    assert '"role":"assistant"' in events[0]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 12},
        {"max_tokens": 40, "stop": [" a", "."]},
        {"max_tokens": 6, "n": 3, "seed": 5, "temperature": 1},
        {"max_tokens": 0},
    ],
)
def test_requirement_07_usage_adds_up_and_is_the_same_streamed_or_not(
    live: Live, body: dict[str, Any]
) -> None:
    live.chat(**{**GREEDY, **body})  # so that the same is found for both
    made, run = "llamacpp:tokens_predicted_total", "llamacpp:prompt_tokens_cached_total"
    before, found = live.metric(made), live.metric(run)
    whole = live.chat(**{**GREEDY, **body}).json()["usage"]
    assert live.metric(made) - before == whole["completion_tokens"]
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"]
    assert whole["prompt_tokens"] == 4
    cached = whole["prompt_tokens_details"]["cached_tokens"]
    assert (live.metric(run) - found) == cached * body.get("n", 1)
    assert live.events(**{**GREEDY, **body}, **USAGE)[-1]["usage"] == whole


def test_requirement_07_tokens_of_what_was_canceled_are_counted(live: Live) -> None:
    before = live.metric("llamacpp:tokens_predicted_total")
    ended = live.own.metrics.ends["broken_off"]
    live.host.steps.close()
    connection = live.raw(request(CHAT, chat_body("Two", stream=True, max_tokens=50, **GREEDY)))
    live.host.steps.let(4)
    read_until(connection, b'"content":"')
    chosen = sum(len(step.emitted) for step in live.host.taken[-4:])
    connection.close()
    until(lambda: live.own.metrics.ends["broken_off"] > ended)
    assert live.metric("llamacpp:tokens_predicted_total") == before + chosen


def test_requirement_08_stop_texts_end_an_answer_wherever_they_lie(live: Live) -> None:
    text = live.chat(max_tokens=24, **GREEDY).json()["choices"][0]["message"]["content"]
    for start in range(1, len(text) - 4, 13):
        stop = text[start : start + 4]  # whatever the borders of tokens
        at = text.index(stop)
        body = {"max_tokens": 24, "stop": ["never", stop], **GREEDY}
        [choice] = live.chat(**body).json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text[:at], "stop")
        events = live.events(**body)
        assert content(events) == text[:at]
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_requirement_08_what_only_begins_like_a_stop_text_is_told_in_the_end(live: Live) -> None:
    text = live.chat(max_tokens=12, **GREEDY).json()["choices"][0]["message"]["content"]
    stop = text[-3:] + "never"
    assert content(live.events(max_tokens=12, stop=stop, **GREEDY)) == text


ODD = "é—😀👩‍👩‍👧 家 \u202e end"


def test_requirement_09_characters_are_whole_in_every_event(live: Live) -> None:
    ids = demo()[1].encode_ids(ODD, add_special_tokens=False)
    assert len(ids) > len(ODD)  # some characters are several tokens
    live.host.forced["lantern"] = ids
    body = {"max_tokens": len(ids), **GREEDY}
    answer = live.chat("lantern", stream=True, **body).content
    pieces = [piece.decode("utf-8") for piece in answer.split(b"\n\n")]  # each by itself
    assert "\N{REPLACEMENT CHARACTER}" not in answer.decode()
    assert content(events_of("\n\n".join(pieces))) == ODD
    assert live.chat("lantern", **body).json()["choices"][0]["message"]["content"] == ODD


def test_requirement_09_bytes_that_are_no_character_are_text_and_no_failure(live: Live) -> None:
    tokenizer = demo()[1]
    [*begun] = tokenizer.encode_ids("😀", add_special_tokens=False)[:-1]
    live.host.forced["lantern"] = [*begun, *tokenizer.encode_ids("ab", add_special_tokens=False)]
    body = {"max_tokens": len(live.host.forced["lantern"]), **GREEDY}
    text = live.chat("lantern", **body).json()["choices"][0]["message"]["content"]
    assert text.endswith("ab") and "\N{REPLACEMENT CHARACTER}" in text
    assert content(live.events("lantern", **body)) == text


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def test_requirement_10_calls_are_the_same_streamed_or_not_and_text_is_kept(live: Live) -> None:
    live.host.parts = [
        ReplyPart("text", "Let me see. <tool_call>{broken"),
        ReplyPart("call", '{"at":"é"}', "look", "call-1"),
        ReplyPart("call", "{}", "look", "call-2"),
    ]
    body = {"tools": TOOLS, "stop": ".", "temperature": 0}
    [choice] = live.chat(**body).json()["choices"]
    events = live.events(**body)
    assert choice["finish_reason"] == events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == content(events) == "Let me see. <tool_call>{broken"
    calls = [call for delta in deltas(events) for call in delta.get("tool_calls", ())]
    assert [call.pop("index") for call in calls] == [0, 1]
    assert calls == choice["message"]["tool_calls"]


def test_requirement_14_a_grammar_is_compiled_beside_the_event_loop_once_for_each_answer(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, made = [], []

    def constraint(self: Any, kind: str, source: Any, prompt: Any = None) -> Any:
        threads.append(threading.current_thread())
        return lambda: made.append(kind) or Unbound()  # type: ignore[func-returns-value]

    monkeypatch.setattr("served_demo.DemoModel.constraint", constraint)
    assert live.chat(regex="a+", n=3, max_tokens=2).status_code == 200
    [thread] = threads
    assert made == ["regex"] * 3
    assert thread.name.startswith("asyncio_")


def test_requirement_14_a_grammar_that_cannot_be_used_is_refused_before_anything_runs(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constraint(self: Any, kind: str, source: Any, prompt: Any = None) -> Any:
        raise UsageError("regex", "takes too long", "make it simpler")

    monkeypatch.setattr("served_demo.DemoModel.constraint", constraint)
    taken = len(live.host.taken)
    for body in ({"regex": "("}, {"response_format": {"type": "json_object"}}, {"grammar": "x"}):
        for stream in (False, True):
            answer = live.chat(stream=stream, **body)
            assert answer.status_code == 400
            assert "takes too long" in answer.json()["error"]["message"]
    assert live.chat(regex="a", grammar="b").status_code == 400
    assert len(live.host.taken) == taken


def test_requirement_24_a_stream_gives_signs_of_life_while_nothing_comes(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "KEEP_ALIVE", 0.01)
    live.host.steps.close()
    with live.raw(request(CHAT, chat_body(stream=True, max_tokens=2), "Connection: close")) as one:
        read_until(one, b": keep-alive\n\n")
        read_until(one, b": keep-alive\n\n")
        live.host.steps.open()
        rest = read_until(one, b"[DONE]")
    assert b'"content":"' in rest


def test_requirement_24_a_stream_tells_how_far_its_prompt_is(live: Live) -> None:
    live.host.chunk = 8
    events = live.events("lion " * 20, max_tokens=1, return_progress=True, cache_prompt=False)
    told = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    done = [each["processed"] for each in told]
    assert len(done) >= 3 and done == sorted(done)
    assert {each["total"] for each in told} == {
        live.chat("lion " * 20).json()["usage"]["prompt_tokens"]
    }
