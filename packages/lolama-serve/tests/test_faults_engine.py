"""What goes wrong while answers are made: clients that leave at any moment, and engines that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faulty_host import BROKEN, PATIENCE, FaultyHost, WatchedEngine
from live_server import (
    CHAT,
    Live,
    chat_body,
    events_of,
    refused,
    request,
    serving,
    streaming,
    until,
)

from lolama_core.protocols.errors import ModelError, ResourceError

ENDLESS = {"max_tokens": 60, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with serving(FaultyHost(chunk=8), parallel=2, max_queue=8) as started:
        yield started


@pytest.fixture
def live(shared: Live) -> Iterator[Live]:
    """A server that is well afterwards."""
    yield shared
    shared.host.failures.clear()
    shared.host.failure = None
    shared.well()
    assert shared.own.generator._running == set()


@pytest.fixture
def together() -> Iterator[ThreadPoolExecutor]:
    """Clients at the same time."""
    with ThreadPoolExecutor(6) as made:
        yield made


def alone(live: Live, text: str) -> Any:
    """The answer to a text that runs by itself."""
    return live.chat(text, **ENDLESS).json()["choices"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 9])
def test_row_550_a_client_leaves_at_any_moment(live: Live, steps: int, stream: bool) -> None:
    """Before a step, within its prompt of 24 positions, at its first tokens, and at its last one."""
    expected = alone(live, "Two")
    live.host.steps.close()
    text = "lion tiger bear wolf deer goat sheep horse mouse duck " * 2
    body = chat_body(text, stream=stream, max_tokens=6, ignore_eos=True)
    with ThreadPoolExecutor(1) as other:
        leaving = live.raw(request(CHAT, body))
        until(lambda: live.running == 1)
        beside = other.submit(live.chat, "Two", **ENDLESS)
        until(lambda: live.running == 2)
        if steps:
            live.host.steps.let(steps)
        else:
            live.host.steps.wait_until_held()
        leaving.close()
        until(lambda: live.running == 1)
        live.host.steps.open()
        assert beside.result().json()["choices"] == expected


@pytest.mark.parametrize("stream", [False, True])
def test_row_550_a_client_leaves_before_its_request_has_joined_the_engine(
    live: Live, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing, goes_on = threading.Event(), threading.Event()
    real = vars(WatchedEngine)["prepare"]

    def held(engine: WatchedEngine) -> Any:
        def prepare(*arguments: Any, **named: Any) -> Any:
            preparing.set()
            assert goes_on.wait(PATIENCE)
            return real.fget(engine)(*arguments, **named)

        return prepare

    monkeypatch.setattr(WatchedEngine, "prepare", property(held))
    taken = len(live.host.taken)
    leaving = live.raw(request(CHAT, chat_body(stream=stream, **ENDLESS)))
    assert preparing.wait(PATIENCE)
    leaving.close()
    until(lambda: live.own.pool.waiting == 0)
    goes_on.set()
    monkeypatch.undo()
    live.well()
    ran = {ticket for step in live.host.taken[taken:] for ticket in step.emitted}
    assert len(ran) == 1  # the one that has just asked whether all is well


def test_row_550_many_clients_leave_at_moments_of_their_own(
    live: Live, together: ThreadPoolExecutor
) -> None:
    expected = alone(live, "Two")

    def leave(number: int) -> None:
        body = chat_body(f"{number}", stream=number % 2 == 0, **ENDLESS)
        with live.raw(request(CHAT, body, "Connection: close")) as connection:
            for _ in range(number % 5 if number % 2 == 0 else 0):
                connection.recv(200)

    live.host.steps.close()
    beside = together.submit(live.chat, "Two", **ENDLESS)
    until(lambda: live.running == 1)  # or the queue may be full of those that leave
    live.host.steps.open()
    list(together.map(leave, range(40)))
    assert beside.result().json()["choices"] == expected


def test_row_551_a_step_that_raises_ends_what_runs_and_nothing_that_comes(
    live: Live, together: ThreadPoolExecutor
) -> None:
    live.host.steps.close()
    asked = [together.submit(live.chat, text, **ENDLESS) for text in ("Two", "Six", "Ten")]
    streamed = together.submit(live.chat, "Elf", stream=True, **ENDLESS)
    until(lambda: live.running == 4)
    live.host.steps.let(2)
    live.host.failures.append(RuntimeError("/secret/path: boom"))
    live.host.steps.open()
    for one in asked:
        assert "/secret" not in refused(one.result(), 500)["message"]
    assert '"error"' in streamed.result().text and "/secret" not in streamed.result().text
    assert alone(live, "Two")


def test_row_552_memory_that_is_short_for_a_moment_changes_no_answer(
    live: Live, together: ThreadPoolExecutor
) -> None:
    texts = ("Two", "Six")
    expected = [alone(live, text) for text in texts]
    live.host.steps.close()
    asked = [together.submit(live.chat, text, **ENDLESS) for text in texts]
    until(lambda: live.running == 2)
    live.host.steps.let(4)
    live.host.failures += [ResourceError("memory", "does not suffice", "wait")] * 2
    live.host.steps.open()
    assert [one.result().json()["choices"] for one in asked] == expected


def test_row_552_where_it_stays_short_the_request_that_came_last_has_to_go(
    live: Live, together: ThreadPoolExecutor
) -> None:
    expected = alone(live, "Two")
    live.host.steps.close()
    first = together.submit(live.chat, "Two", **ENDLESS)
    until(lambda: live.running == 1)
    live.host.steps.let(2)
    second = together.submit(live.chat, "Six", **ENDLESS)
    until(lambda: live.running == 2)
    live.host.steps.let(2)
    live.host.failures += [ResourceError("memory", "does not suffice", "wait")] * 3
    live.host.steps.open()
    assert first.result().json()["choices"] == expected
    answer = second.result()
    assert refused(answer, 503) and answer.headers["Retry-After"]


@pytest.mark.parametrize("method", ["add", "collect", "cancel", "prompt_progress"])
def test_row_553_an_engine_that_fails_elsewhere_does_not_end_its_thread(
    live: Live, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = getattr(WatchedEngine, method), [1]

    def failing(engine: WatchedEngine, *arguments: Any) -> Any:
        if left:
            left.pop()
            if method == "cancel":
                real(engine, *arguments)
            raise RuntimeError("boom")
        return real(engine, *arguments)

    monkeypatch.setattr(WatchedEngine, method, failing)
    with streaming(live, return_progress=True, **ENDLESS):
        pass  # and the client leaves
    until(lambda: live.own.pool.waiting == 0)
    live.chat(max_tokens=2)
    assert left == []
    monkeypatch.undo()
    assert live.chat(max_tokens=2).is_success


def test_row_554_broken_logits_of_one_stream_are_an_event_of_that_stream(
    live: Live, together: ThreadPoolExecutor
) -> None:
    expected = alone(live, "Two")[0]["message"]["content"]
    streams = [together.submit(live.events, "Two", **ENDLESS) for _ in range(2)]
    broken = [together.submit(live.chat, BROKEN, stream=True, **ENDLESS) for _ in range(3)]
    for stream in streams:
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in stream.result()]
        assert "".join(pieces) == expected
    assert all("non-finite" in one.result().text for one in broken)


def test_row_555_one_of_several_prompts_fails_and_its_request_with_it(
    live: Live, together: ThreadPoolExecutor
) -> None:
    expected = alone(live, "Two")
    beside = together.submit(live.chat, "Two", **ENDLESS)
    body = {"prompt": ["One", BROKEN, "Six"], **ENDLESS}
    assert "non-finite" in refused(live.post("/v1/completions", body), 500)["message"]
    assert beside.result().json()["choices"] == expected


@pytest.mark.parametrize(
    "error", [ModelError("reply", "cannot be read", "try again"), RuntimeError("/secret: boom")]
)
def test_row_556_a_parser_that_fails_in_mid_answer_is_an_error_of_that_answer(
    live: Live, error: Exception
) -> None:
    live.host.failure = error
    assert "/secret" not in refused(live.chat(**ENDLESS), 500)["message"]
    told = live.chat(stream=True, **ENDLESS).text
    assert '"error"' in told and "[DONE]" not in told and "/secret" not in told


@pytest.mark.parametrize(
    "error", [RuntimeError("/secret: boom"), RecursionError(), MemoryError(), KeyError("x")]
)
@pytest.mark.parametrize("place", ["chat_prompt", "settings"])
def test_row_557_what_nobody_has_foreseen_tells_nothing_of_the_machine(
    live: Live, error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(f"served_demo.DemoModel.{place}", failing)
    for stream in (False, True):
        message = refused(live.chat(stream=stream), 500)["message"]
        assert message == "the server failed at this request; its log says why"
    monkeypatch.undo()
    assert events_of(live.chat(stream=True, max_tokens=2).text)
