"""Requirements 1 to 5, 16 and 21: what runs, what waits, and what is left behind.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from faulty_host import BROKEN, FaultyHost
from live_server import (
    CHAT,
    Live,
    chat_body,
    events_of,
    request,
    serving,
    streaming,
    until,
)

from lolama_serve.engine_thread import Submission

LONG = "The quick brown fox jumps over it. " * 30
"""A prompt of 276 tokens."""

ENDLESS = {"max_tokens": 100, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with serving(FaultyHost(chunk=8), parallel=2, max_queue=3) as started:
        yield started


def left(live: Live) -> int:
    """Requests that were broken off so far."""
    return live.own.metrics.ends["broken_off"]


@pytest.mark.parametrize("stream", [True, False])
def test_requirement_01_a_client_that_leaves_frees_its_row_within_a_step(
    live: Live, stream: bool
) -> None:
    live.host.steps.close()
    before = left(live)
    connection = live.raw(request(CHAT, chat_body(stream=stream, **ENDLESS)))
    live.host.steps.let(3)
    connection.close()
    until(lambda: left(live) > before, "nobody notices that the client has left")
    taken = len(live.host.taken)
    live.host.steps.open()
    engine = live.own.pool.loaded["demo"].engine
    until(lambda: not engine.busy)
    assert len(live.host.taken) - taken <= 1
    assert engine.used_cache_bytes == 0


def test_requirement_01_a_client_that_leaves_while_it_waits_is_never_run(live: Live) -> None:
    live.host.steps.close()
    before = left(live)
    with streaming(live, **ENDLESS), streaming(live, "Two", **ENDLESS):
        live.host.steps.let(2)
        waiting = live.raw(request(CHAT, chat_body("Three", **ENDLESS)))
        until(lambda: live.running == 3)
        live.host.steps.let(2)
        waiting.close()
        until(lambda: left(live) > before)
        mark = len(live.host.taken)
        live.host.steps.let(5)
        running = {ticket for step in live.host.taken[mark + 1 :] for ticket in step.progress}
        assert len(running) == 2


def test_requirement_01_a_client_that_leaves_in_prefill_is_not_read_to_the_end(live: Live) -> None:
    live.host.steps.close()
    before = left(live)
    with streaming(live, **ENDLESS):
        live.host.steps.let(2)
        reading = live.raw(request(CHAT, chat_body(LONG, **ENDLESS)))
        until(lambda: live.running == 2)
        live.host.steps.let(5)
        ticket, done = max(live.host.taken[-1].progress.items())
        assert 0 < done < 276
        reading.close()
        until(lambda: left(live) > before)
        live.host.steps.let(2)
        assert ticket in live.host.canceled
        assert [*live.host.taken[-1].progress] != [] and ticket not in live.host.taken[-1].progress


@pytest.mark.parametrize("stream", [True, False])
def test_requirement_02_a_prompt_that_is_too_long_is_refused_with_both_numbers(
    live: Live, stream: bool
) -> None:
    taken = len(live.host.taken)
    answer = live.chat(LONG * 3, stream=stream)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_ctx"], error["n_prompt_tokens"] > 512) == (512, True)
    assert "512" in error["message"] and f"{error['n_prompt_tokens']:,}" in error["message"]
    assert len(live.host.taken) == taken


def test_requirement_02_an_answer_that_ends_with_the_context_says_so(live: Live) -> None:
    answer = live.chat(LONG + LONG[:900], temperature=0, ignore_eos=True).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 512


def test_requirement_03_decoding_never_stalls_behind_a_prompt() -> None:
    with serving(parallel=2) as live:  # with the engine's own size of chunks
        live.host.steps.close()
        with streaming(live, **ENDLESS):
            live.host.steps.let(3)
            with live.raw(request(CHAT, chat_body(LONG, max_tokens=1))):
                until(lambda: live.running == 2)
                live.host.steps.let(12)
                first = live.host.taken[0].emitted[0]
                beside = [step for step in live.host.taken if len(step.progress) == 2]
                assert beside
                assert all(first in step.emitted for step in live.host.taken)
        live.well()


def test_requirement_03_a_prompt_that_came_later_and_is_short_passes_a_long_one(live: Live) -> None:
    live.host.steps.close()
    with live.raw(request(CHAT, chat_body("Now: " + LONG, **ENDLESS))):
        live.host.steps.let(2)
        with live.raw(request(CHAT, chat_body("Hi", **ENDLESS))):
            until(lambda: live.running == 2)
            live.host.steps.let(6)
            first, second = sorted(live.host.taken[-1].progress)
            assert live.host.taken[-1].progress[first] < 276
            assert any(second in step.emitted for step in live.host.taken)


def test_requirement_04_nothing_of_a_request_stays(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("lolama.serve")
    monkeypatch.setattr(log, "disabled", True)  # or pytest keeps what was logged, with its errors

    def ask(number: int) -> None:
        text = f"{number} {BROKEN if number % 9 == 5 else 'story'}"
        if number % 4 == 1:
            live.raw(request(CHAT, chat_body(text, stream=True, **ENDLESS))).close()
        else:
            live.chat(text, stream=number % 2 == 0, max_tokens=3, n=1 + number % 3)

    with ThreadPoolExecutor(4) as together:
        list(together.map(ask, range(24)))
    live.well()
    gc.collect()
    engine = live.own.pool.loaded["demo"].engine  # errors that other tests keep hold their own
    submissions = [one for one in gc.get_objects() if isinstance(one, Submission)]
    assert [one for one in submissions if one.engine is engine] == []
    assert live.own.generator._running == set()


def test_requirement_04_texts_give_way_where_the_memory_is_full_and_are_complete() -> None:
    with serving(parallel=3) as roomy:
        alone = [roomy.chat(text, **ENDLESS).json()["choices"][0] for text in ("One", "Two", "Six")]
        page = roomy.own.pool.loaded["demo"].engine.kept_cache_bytes
    with serving(parallel=3, cache_bytes=page // 2) as live, ThreadPoolExecutor(3) as together:
        answers = together.map(
            lambda text: live.chat(text, **ENDLESS).json(), ("One", "Two", "Six")
        )
        assert [answer["choices"][0] for answer in answers] == alone
        rows = [{*step.emitted} for step in live.host.taken]
        begun = [set().union(*rows[:number]) for number in range(len(rows))]
        ended = [set().union(*rows[number:]) for number in range(len(rows))]
        assert any(
            (before & after) - now for before, now, after in zip(begun, rows, ended, strict=True)
        )
        live.well()


def test_requirement_05_a_full_queue_is_answered_with_429_and_when_to_come_again(
    live: Live,
) -> None:
    refused = live.metric("lolama:requests_refused_total")
    live.host.steps.close()
    held = [live.raw(request(CHAT, chat_body(**ENDLESS))) for _ in range(5)]
    until(lambda: live.running == 5)
    answer = live.chat()
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["code"] == "queue_full"
    assert live.metric("llamacpp:requests_processing") == 2
    assert live.metric("llamacpp:requests_deferred") == 3
    assert live.metric("lolama:requests_refused_total") == refused + 1
    for one in held:
        one.close()


def test_requirement_05_who_came_first_runs_first(live: Live) -> None:
    live.host.steps.close()
    waiting: list[socket.socket] = []
    for number in range(5):
        waiting.append(live.raw(request(CHAT, chat_body(f"{number}", max_tokens=2))))
        until(lambda count=number + 1: live.running == count)  # type: ignore[misc]
    live.host.steps.let(1)  # those that came before the thread looked again
    mark = len(live.host.taken)
    live.host.steps.open()
    until(lambda: live.own.pool.waiting == 0)
    order = dict.fromkeys(ticket for step in live.host.taken[mark - 1 :] for ticket in step.emitted)
    assert [*order] == sorted(order)
    assert len(order) == 5
    for connection in waiting:
        connection.close()


def test_requirement_16_one_texts_broken_logits_are_its_own(live: Live) -> None:
    texts = ("One day", "Two cats")
    alone = [live.chat(text, **ENDLESS).json()["choices"] for text in texts]
    with ThreadPoolExecutor(3) as together:
        whole = [together.submit(live.chat, text, **ENDLESS) for text in texts]
        broken = together.submit(live.chat, BROKEN, **ENDLESS)
        assert [one.result().json()["choices"] for one in whole] == alone
    assert broken.result().status_code == 500
    assert "non-finite logits" in broken.result().json()["error"]["message"]


def test_requirement_21_the_next_turn_runs_only_what_is_new(live: Live) -> None:
    first = [{"role": "user", "content": LONG[:700]}]
    told = live.post(CHAT, {"messages": first, "max_tokens": 8, "temperature": 0}).json()
    [choice] = told["choices"]
    turns = [*first, choice["message"], {"role": "user", "content": "And then?"}]
    body = {"messages": turns, "max_tokens": 4}
    for stream in (False, True):
        options = {"stream": stream, "stream_options": {"include_usage": True}}
        answer = live.post(CHAT, {**body, **options})
        usage = (events_of(answer.text)[-1] if stream else answer.json())["usage"]
        found = usage["prompt_tokens_details"]["cached_tokens"]
        assert told["usage"]["prompt_tokens"] - 16 <= found < usage["prompt_tokens"]
