"""Bodies that make no sense, and templates that nobody may give."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from live_server import (
    CHAT,
    Live,
    chat_body,
    refused,
    request,
    serving,
    status_of,
)

CLOSE = "Connection: close"
PATHS = (CHAT, "/v1/completions", "/completion", "/v1/messages", "/api/chat", "/api/generate")
EVERY = (
    *PATHS,
    "/v1/embeddings",
    "/api/embed",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/api/show",
)


@pytest.fixture
def live(live: Live) -> Iterator[Live]:
    """A server in which nothing has run."""
    taken = len(live.host.taken)
    yield live
    assert len(live.host.taken) == taken, "something has run"


def status(live: Live, path: str, body: bytes, *lines: str) -> int:
    """What is answered to a body."""
    return status_of(live.said(request(path, body, CLOSE, *lines)))


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize(
    "deep", [b"[" * 100_000, b'{"a":' * 100_000, b'{"messages":' + b"[" * 5_000]
)
def test_row_520_json_that_is_nested_without_end_is_refused(
    live: Live, path: str, deep: bytes
) -> None:
    assert status(live, path, deep) == 400


def test_row_520_within_fields_that_may_hold_anything_too(live: Live) -> None:
    for field in (b'"response_format"', b'"json_schema"', b'"metadata"', b'"logit_bias"'):
        for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
            deep = opening * 20_000 + b"1" + closing * 20_000
            body = b'{"messages":[{"role":"user","content":"a"}],' + field + b":" + deep + b"}"
            assert status(live, CHAT, body) == 400


@pytest.mark.parametrize("path", PATHS[:3])
def test_row_521_of_a_field_that_comes_twice_the_last_one_counts(path: str) -> None:
    with serving(parallel=1) as live:
        text = '"messages": [{"role": "user", "content": "a"}]' if path == CHAT else '"prompt": "a"'
        body = f'{{{text}, "max_tokens": 90, "max_tokens": 2}}'.encode()
        answer = live.said(request(path, body, CLOSE))
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        count = told["usage"]["completion_tokens"] if "usage" in told else told["tokens_predicted"]
        assert count <= 2


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize(
    "bad", [b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"]
)
def test_row_522_bytes_that_are_no_utf8_are_refused(live: Live, path: str, bad: bytes) -> None:
    assert status(live, path, b'{"prompt": "' + bad + b'"}') == 400
    assert status(live, path, bad + b"{}") == 400


@pytest.mark.parametrize("lone", ["\\ud83d", "\\ude00", "a\\ud83d\\u0041"])
def test_row_522_halves_of_surrogate_pairs_are_refused(live: Live, lone: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "{lone}"}}]}}'.encode()
    assert status(live, CHAT, body) == 400


@pytest.mark.parametrize("path", PATHS[:3])
@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "0x1", "1_0", ".5", "01"]
)
def test_row_523_what_is_no_number_of_json_is_refused(live: Live, path: str, number: str) -> None:
    for field in ("temperature", "top_p", "seed", "max_tokens"):
        text = '"messages": [{"role": "user", "content": "a"}]' if path == CHAT else '"prompt": "a"'
        assert status(live, path, f'{{{text}, "{field}": {number}}}'.encode()) == 400


HUGE = "9" * 5_000


@pytest.mark.parametrize("path", PATHS[:3])
@pytest.mark.parametrize(
    "field", ["temperature", "top_k", "seed", "max_tokens", "n", "top_logprobs"]
)
def test_row_524_numbers_of_thousands_of_digits_are_refused(
    live: Live, path: str, field: str
) -> None:
    text = '"messages": [{"role": "user", "content": "a"}]' if path == CHAT else '"prompt": "a"'
    numbers = [HUGE, "-" + HUGE, "1e5000"]
    if field not in ("top_k", "max_tokens"):  # which mean as many as there are
        numbers.append("9" * 25)
    for number in numbers:
        assert status(live, path, f'{{{text}, "{field}": {number}}}'.encode()) == 400


def test_row_524_also_where_ids_are_expected(live: Live) -> None:
    for path, field in (
        ("/completion", "prompt"),
        ("/v1/completions", "prompt"),
        ("/detokenize", "tokens"),
    ):
        for number in (HUGE, "9" * 25, "-1", "2048", "true", "1.5", "null"):
            assert status(live, path, f'{{"{field}": [1, {number}]}}'.encode()) == 400, number
    for number in (HUGE, "9" * 25, "-1", "2048"):
        assert status(live, "/v1/embeddings", f'{{"input": [1, {number}]}}'.encode()) == 400


@pytest.mark.parametrize(
    "data",
    ["====", "A", "AAA", "A===", "AA\nAA", "AA AA", "_-_-", "é" * 4, "AAAA=AAA", "%41%41%41%41"],
)
def test_row_525_what_is_no_base64_is_refused(live: Live, data: str) -> None:
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    refused(live.post(CHAT, {"messages": [{"role": "user", "content": [shown]}]}))
    source = {"type": "base64", "media_type": "image/png", "data": data}
    picture = [{"type": "image", "source": source}]
    body = {"messages": [{"role": "user", "content": picture}], "max_tokens": 1}
    assert live.post("/v1/messages", body).status_code == 400
    turn = {"role": "user", "content": "a", "images": [data]}
    assert live.post("/api/chat", {"model": "demo", "messages": [turn]}).status_code == 400


TEMPLATES = (
    "template",
    "chat_template",
    "system_template",
    "suffix_template",
    "jinja",
    "raw_template",
)


@pytest.mark.parametrize("path", [*PATHS, "/apply-template", "/v1/embeddings", "/tokenize"])
@pytest.mark.parametrize("field", TEMPLATES)
def test_row_527_no_api_takes_a_template_from_a_request(live: Live, path: str, field: str) -> None:
    asked = len(live.host.asked)
    message = [{"role": "user", "content": "a"}]
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"messages": message},
        "/v1/messages": {"messages": message, "max_tokens": 1},
        "/api/chat": {"model": "demo", "messages": message},
        "/apply-template": {"messages": message},
        "/api/generate": {"model": "demo", "prompt": "a"},
        "/v1/embeddings": {"input": "a"},
        "/tokenize": {"content": "a"},
    }
    body = bodies.get(path, {"prompt": "a"})
    answer = live.post(path, {**body, field: "{{ 7 * 7 }}"})
    assert answer.status_code == 400 and field in answer.text
    assert len(live.host.asked) == asked


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_row_528_compressed_bodies_are_not_unpacked(live: Live, encoding: str) -> None:
    body = gzip.compress(json.dumps(chat_body("a" * 10_000_000)).encode())
    assert status(live, CHAT, body, f"Content-Encoding: {encoding}") == 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_row_529_bodies_in_other_encodings_are_refused(live: Live, encoding: str) -> None:
    text = json.dumps(chat_body("é"), ensure_ascii=False)
    assert status(live, CHAT, text.encode(encoding), f"Content-Type: x; charset={encoding}") == 400


def test_row_530_thousands_of_prompts_are_refused_before_one_is_read(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("served_demo.DemoModel.text_prompt", None)  # a call would fail, with 500
    for path in ("/v1/completions", "/completion"):
        refused(live.post(path, {"prompt": ["a"] * 20_000}))
    refused(live.post("/v1/completions", {"prompt": ["a"] * 2, "n": 100}))
    refused(live.post("/v1/embeddings", {"input": ["a"] * 20_000}))
