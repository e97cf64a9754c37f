"""Requirement 25: what a server tells of itself, and what its log does.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import io
import json
import logging

import pytest
from faulty_host import FaultyHost
from live_server import (
    Live,
    refused,
    serving,
    streaming,
    until,
)

from lolama_serve.logs import JSONLines


def test_requirement_25_health_tells_loading_and_ready() -> None:
    host = FaultyHost()
    host.loading.close()
    with serving(host, ready=False) as live:
        host.loading.wait_until_held()
        for path in ("/health", "/v1/health"):
            answer = live.get(path)
            assert refused(answer, 503)["type"] == "unavailable_error"
            assert answer.headers["Retry-After"] == "1"
        host.loading.open()
        until(lambda: live.get("/health").status_code == 200)
        assert live.get("/health").json() == {"status": "ok"}


def test_requirement_25_metrics_are_the_sums_of_answers(live: Live) -> None:
    names = {
        "llamacpp:prompt_tokens_total": "prompt_n",
        "llamacpp:prompt_tokens_cached_total": "cache_n",
        "llamacpp:tokens_predicted_total": "predicted_n",
    }
    before = {name: live.metric(name) for name in names}
    longest = live.metric("llamacpp:n_tokens_max")
    told = [
        live.chat(f"{word} day", max_tokens=3 + len(word)).json()["timings"]
        for word in "a bcd".split()
    ]
    told += [live.events("One", max_tokens=4)[-1]["timings"]]
    for name, field in names.items():
        assert live.metric(name) - before[name] == sum(timings[field] for timings in told)
    lengths = [sum(timings[field] for field in names.values()) for timings in told]
    assert live.metric("llamacpp:n_tokens_max") == max(longest, *lengths) > 0
    for line in live.get("/metrics").text.splitlines():
        assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0


def test_requirement_25_the_log_tells_the_id_of_each_request_and_nothing_raw(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONLines())
    monkeypatch.setattr(logging.getLogger("lolama.serve"), "handlers", [handler])
    caplog.set_level(logging.INFO, logger="lolama.serve")
    answer = live.get("/a%0d%0aINFO%20forged%1b[31m", headers={"X-Request-Id": "forged"})
    known = answer.headers["X-Request-Id"]
    assert known != "forged"
    until(lambda: written.getvalue().endswith("\n"))
    [line] = written.getvalue().splitlines()
    assert json.loads(line)["request"] == known
    assert json.loads(line)["path"] == "/a\r\nINFO forged\x1b[31m"
    assert line.isascii() and line.isprintable()


def test_requirement_25_texts_are_in_no_log(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    live.chat("violet hippopotamus", max_tokens=2)
    with streaming(live, "violet hippopotamus", max_tokens=2):
        pass
    live.well()
    assert caplog.records
    assert "hippopotamus" not in caplog.text
