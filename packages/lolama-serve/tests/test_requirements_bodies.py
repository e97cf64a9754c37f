"""Requirements 15, 22 and 23: every field of a request is honored, or refused in one shape.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from live_server import (
    CHAT,
    Live,
    chat_body,
    refused,
    request,
    status_of,
)

from lolama_serve.api.sampling import Sampling

BEYOND: list[dict[str, Any]] = [
    {"n": 0},
    {"n": -1},
    {"n": 129},
    {"n": 10**30},
    {"max_tokens": -2},
    {"max_completion_tokens": -7},
    {"max_tokens": 1.5},
    {"top_logprobs": 21, "logprobs": True},
    {"top_logprobs": -1, "logprobs": True},
    {"top_logprobs": 3},
    {"temperature": -0.1},
    {"temperature": 1e300},
    {"top_p": 1.1},
    {"top_p": -1},
    {"min_p": 2},
    {"typical_p": -0.5},
    {"top_k": 1e9},
    {"repeat_penalty": 0},
    {"seed": 2**70},
    {"seed": -5},
    {"no_repeat_ngram_size": -1},
    {"dry_multiplier": -1},
    {"xtc_probability": 7},
    {"stop": ["x"] * 65},
    {"stop": "x" * 1_001},
    {"logit_bias": {str(number): 1 for number in range(1_025)}},
    {"logit_bias": {"2048": 1}},
    {"logit_bias": {"9" * 5_000: 1}},
    {"logit_bias": {"1": 1e300}},
    {"logit_bias": [[1, True]]},
    {"logit_bias": [[10**30, 1]]},
    {"messages": []},
    {"messages": [{"role": "user", "content": "a"}] * 100_000},
]


@pytest.mark.parametrize("body", BEYOND, ids=lambda body: str(body)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_requirement_15_every_number_is_bounded(
    live: Live, body: dict[str, Any], stream: bool
) -> None:
    taken = len(live.host.taken)
    refused(live.post(CHAT, {**chat_body(), "stream": stream, **body}))
    assert len(live.host.taken) == taken


def test_requirement_15_no_limit_is_none_and_the_context_is_the_most(live: Live) -> None:
    for given in ({"max_tokens": 10**9}, {"max_tokens": -1}, {"max_completion_tokens": None}):
        usage = live.chat("Hi " * 130, ignore_eos=True, temperature=0, **given).json()["usage"]
        assert usage["total_tokens"] == 512


HARMLESS = {"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}


def test_requirement_22_a_parameter_is_honored_or_refused(live: Live) -> None:
    for field in ("best", "Temperature", "max_token", "functions", "audio", "web_search_options"):
        assert refused(live.chat(**{field: 1}))["param"] == field
    body = {"prompt": "Once", "nonsense": 1}
    for path in ("/v1/completions", "/completion", "/v1/embeddings", "/tokenize"):
        answer = live.post(path, body if "embed" not in path else {"input": "a", "nonsense": 1})
        refused(answer)
    assert live.chat(max_tokens=1, **HARMLESS).is_success


GIVEN: dict[str, Any] = {
    "temperature": 0.5,
    "top_k": 7,
    "top_p": 0.5,
    "min_p": 0.25,
    "typical_p": 0.5,
    "top_n_sigma": 2.0,
    "repeat_penalty": 1.25,
    "no_repeat_ngram_size": 3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "dry_multiplier": 0.5,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 9,
    "dry_sequence_breakers": ["x"],
    "xtc_probability": 0.5,
    "xtc_threshold": 0.25,
    "seed": 17,
    "ignore_eos": True,
    "min_tokens": 1,
    "stop": ["never"],
}


def test_requirement_22_each_setting_reaches_the_engine(live: Live) -> None:
    told = live.post("/completion", {"prompt": "Once", "n_predict": 2, **GIVEN}).json()
    settings = told["generation_settings"]
    renamed = {"repeat_penalty": "repeat_penalty", "min_tokens": "min_new_tokens"}
    for field, value in GIVEN.items():
        assert settings[renamed.get(field, field)] in (value, (value,)), field
    listed = {field.name for field in msgspec.structs.fields(Sampling)}
    assert listed - {*GIVEN} == {"repetition_penalty", "logit_bias"}  # another name; below
    only = live.chat(logit_bias={"69": 1_000}, max_tokens=3, temperature=0).json()
    assert only["choices"][0]["message"]["content"] == "aaa"


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "JSON"),
    (b"nothing", "JSON"),
    (b"{", "JSON"),
    (b"[]", "object"),
    (b"null", "object"),
    (b'"text"', "object"),
    (b"7", "object"),
    (b"{}", "messages"),
    (b'{"messages": 5}', "messages"),
    (b'{"messages": [5]}', "messages[0]"),
    (b'{"messages": [{}]}', "role"),
    (b'{"messages": [{"role": "user"}]}', "content"),
    (b'{"messages": [{"role": "king", "content": "a"}]}', "king"),
    (b'{"messages": [{"role": "user", "content": [{"type": "film"}]}]}', "film"),
    (b'{"messages": [{"role": "user", "content": "a"}], "stream": "yes"}', "stream"),
    (b'{"messages": [{"role": "user", "content": "a"}], "tools": "all"}', "tools"),
    (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": "3"}', "max_tokens"),
]


@pytest.mark.parametrize(("body", "word"), MALFORMED)
def test_requirement_23_a_body_that_makes_no_sense_is_an_error_in_its_shape(
    live: Live, body: bytes, word: str
) -> None:
    answer = live.said(request(CHAT, body, "Connection: close"))
    head, _, content = answer.partition(b"\r\n\r\n")
    assert status_of(head) == 400
    error = json.loads(content)["error"]
    assert error["type"] == "invalid_request_error"
    assert word in error["message"]


def test_requirement_23_each_kind_of_error_has_its_status(live: Live) -> None:
    assert refused(live.get("/nowhere"), 404)["type"] == "not_found_error"
    assert refused(live.get(CHAT), 405)
    assert refused(live.chat(model="other"), 404)["code"] == "model_not_found"
    assert refused(live.get("/v1/models/other"), 404)["code"] == "model_not_found"
    for path, body in (
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": [[]]}),
        ("/completion", {"prompt": []}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": [[]]}),
    ):
        refused(live.post(path, body))


@pytest.mark.parametrize("role", ["system", "developer"])
def test_requirement_23_what_other_servers_take_is_taken(live: Live, role: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        {"role": role, "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": None, "tool_call_id": "c"},
    ]
    answer = live.post(CHAT, {"messages": turns, "max_completion_tokens": 2, "temperature": 0})
    assert answer.is_success
    assert answer.json()["usage"]["completion_tokens"] <= 2
    assert live.host.asked[-1]["messages"][0]["role"] == "system"
