"""Models that come late, not at all, or have to leave, and requests that wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from faulty_host import FaultyHost
from live_server import CHAT, Live, chat_body, refused, request, serving, streaming, until

from lolama_core.protocols.errors import ModelError, ResourceError

THREE = ("demo", "second", "third")
ENDLESS = {"max_tokens": 100, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def host() -> FaultyHost:
    """Three models."""
    return FaultyHost(known=THREE)


@pytest.fixture
def live(host: FaultyHost) -> Iterator[Live]:
    """A server of which the first is loaded."""
    with serving(host, parallel=2, max_queue=2) as started:
        yield started
        started.well()


@pytest.fixture
def together() -> Iterator[ThreadPoolExecutor]:
    """Clients at the same time."""
    with ThreadPoolExecutor(12) as made:
        yield made


def ask(clients: ThreadPoolExecutor, live: Live, model: str, count: int = 1) -> list[Future[Any]]:
    """Chats with a model, all at once."""
    return [clients.submit(live.chat, "Hi", model=model, max_tokens=2) for _ in range(count)]


def test_row_539_a_model_is_loaded_to_the_end_though_its_client_leaves(live: Live) -> None:
    live.host.loading.close()
    leaving = live.raw(request(CHAT, chat_body(model="second")))
    live.host.loading.wait_until_held()
    leaving.close()
    until(lambda: live.own.pool.waiting == 0)
    assert live.get("/health").status_code == 503
    live.host.loading.open()
    until(lambda: "second" in live.own.pool.loaded)
    assert live.chat(model="second", max_tokens=1).is_success
    assert live.host.loads == ["demo", "second"]
    assert live.own.pool.loaded["second"].users == 0


def test_row_539_those_that_wait_with_it_get_it(live: Live, together: ThreadPoolExecutor) -> None:
    live.host.loading.close()
    leaving = live.raw(request(CHAT, chat_body(model="second")))
    live.host.loading.wait_until_held()
    waiting = ask(together, live, "second", 2)
    until(lambda: live.own.pool.waiting == 3)
    leaving.close()
    until(lambda: live.own.pool.waiting == 2)
    live.host.loading.open()
    assert [one.result().status_code for one in waiting] == [200, 200]
    assert live.host.loads == ["demo", "second"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelError("/secret/a/w.safetensors", "is damaged", "see /secret/b"), 500),
        (ResourceError("memory", "does not suffice", "close other programs"), 503),
        (RuntimeError("/secret/path: boom"), 500),
        (MemoryError(), 500),
    ],
)
def test_row_540_a_model_that_cannot_be_loaded_is_an_error_for_its_requests_alone(
    live: Live, together: ThreadPoolExecutor, error: Exception, status: int
) -> None:
    live.host.load_failures = [error]
    live.host.loading.close()
    with streaming(live, **ENDLESS):
        waiting = ask(together, live, "second", 2)
        live.host.loading.wait_until_held()
        until(lambda: live.own.pool._holders["second"] == 2)
        live.host.loading.open()
        for one in waiting:
            message = refused(one.result(), status)["message"]
            assert "secret" not in message
            if isinstance(error, ModelError):
                assert message == "w.safetensors: is damaged; see b"
    assert live.get("/health").status_code == 200
    assert live.chat(model="second", max_tokens=1).is_success  # it is tried again


def test_row_541_a_server_without_its_first_model_ends_with_the_reason() -> None:
    host = FaultyHost()
    host.load_failures = [ModelError("demo", "is damaged", "download it again")]
    with serving(host, ready=False) as live:
        until(lambda: live.own.failure is not None)
        assert "is damaged" in str(live.own.failure)
        until(lambda: live.server.should_exit)
    assert host.loads == []


def test_row_542_a_model_that_has_vanished_is_not_found_and_takes_no_other_along() -> None:
    host = FaultyHost(known=THREE)
    with serving(host, models=["demo", "second"]) as live:
        live.own.pool.loaded.pop("second")
        host.gone = {"second"}
        assert "vanished" in refused(live.chat(model="second"), 404)["message"]
        assert [one["id"] for one in live.get("/v1/models").json()["data"]] == ["demo"]
        assert refused(live.get("/v1/models/second"), 404)
        host.gone = {"demo"}
        assert live.chat(max_tokens=1).is_success  # it is in memory
        live.well()


def test_row_543_models_that_do_not_fit_together_take_turns(together: ThreadPoolExecutor) -> None:
    host = FaultyHost(known=THREE)
    most = []
    with serving(host, parallel=2, model_bytes=2_500, max_queue=30) as live:
        real = host.load

        def load(name: str) -> Any:
            most.append(len(live.own.pool.loaded) + 1)
            return real(name)

        host.load = load  # type: ignore[method-assign]
        asked = [one for _ in range(4) for name in THREE for one in ask(together, live, name)]
        assert [one.result().status_code for one in asked] == [200] * 12
        assert max(most) <= 2
        assert {*host.closed}  # some have left
        live.well()


def test_row_543_a_model_in_use_stays_and_the_other_waits(together: ThreadPoolExecutor) -> None:
    host = FaultyHost(known=THREE)
    with serving(host, parallel=2, model_bytes=1_500) as live:
        host.steps.close()
        with streaming(live, **ENDLESS):
            host.steps.let(2)
            [other] = ask(together, live, "second")
            until(lambda: host.finds["second"] > 0)
            host.steps.let(3)
            assert host.closed == [] and host.loads == ["demo"]
        host.steps.open()
        assert other.result().status_code == 200
        assert host.closed == ["demo"] and host.loads == ["demo", "second"]


def test_row_544_a_model_that_never_fits_is_refused_and_drives_nobody_out() -> None:
    host = FaultyHost(known=THREE, sizes={"second": 10_000})
    with serving(host, model_bytes=1_500) as live:
        assert refused(live.chat(model="second"), 503)
        assert host.loads == ["demo"] and host.closed == []
        live.well()


def test_row_545_a_model_that_is_let_go_of_while_requests_come_is_loaded_again(
    together: ThreadPoolExecutor,
) -> None:
    host = FaultyHost()
    with serving(host, parallel=2, max_queue=30) as live:
        asked = []
        for _ in range(6):
            asked += ask(together, live, "demo", 2)
            live.post("/api/generate", {"model": "demo", "keep_alive": 0})
        assert [one.result().status_code for one in asked] == [200] * 12
        live.well()


def test_rows_546_and_549_who_wakes_a_sleeping_model_loads_it_once(
    together: ThreadPoolExecutor,
) -> None:
    host = FaultyHost()
    with serving(host, parallel=2, max_queue=30, sleep_idle=0.0) as live:
        until(lambda: live.own.pool.state == "sleeping")
        assert live.own.pool.loaded == {} and host.closed == ["demo"]
        host.loading.close()
        asked = ask(together, live, "demo", 6)
        host.loading.wait_until_held()
        until(lambda: live.own.pool.waiting == 6)
        before = len(host.loads)
        host.loading.open()
        assert [one.result().status_code for one in asked] == [200] * 6
        assert len(host.loads) == before + 1


def test_row_547_the_queue_is_full_while_a_model_loads(
    live: Live, together: ThreadPoolExecutor
) -> None:
    live.host.loading.close()
    waiting = ask(together, live, "second", 4)
    until(lambda: live.own.pool.waiting == 4)
    for model in ("second", "demo"):
        answer = live.chat(model=model)
        assert refused(answer, 429) and answer.headers["Retry-After"]
    live.host.loading.open()
    assert [one.result().status_code for one in waiting] == [200] * 4


def test_row_548_a_server_ends_while_a_model_is_being_loaded(
    together: ThreadPoolExecutor,
) -> None:
    host = FaultyHost(known=THREE)
    host.open_all = lambda: host.steps.open()  # type: ignore[method-assign] # loading goes on
    with serving(host, parallel=2) as live:
        host.loading.close()
        [waiting] = ask(together, live, "second")
        host.loading.wait_until_held()
    assert host.loading.holds
    assert "is being stopped" in refused(waiting.result(), 503)["message"]
    host.loading.open()
