"""``/completion`` of llama.cpp's server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def completion(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/completion", json={"prompt": "Once upon a time", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(("wanted", "cut"), [(4, False), (-1, True), (1_000, True)])
def test_an_answer_is_truncated_where_the_context_is_full_before_its_length(
    client_of: Callable[..., TestClient], wanted: int, cut: bool
) -> None:
    client = client_of(context=16)
    found = completion(client, n_predict=wanted, ignore_eos=True)
    assert found["truncated"] is cut
    assert found["stop_type"] == "limit"
    room = 16 - found["tokens_evaluated"]
    assert completion(client, n_predict=room, ignore_eos=True)["truncated"] is False


def test_end_tokens_that_are_ignored_have_a_bias_of_no_number(client: TestClient) -> None:
    settings = completion(client, n_predict=1, ignore_eos=True)["generation_settings"]
    assert settings["logit_bias"]
    assert all(one["bias"] is None for one in settings["logit_bias"])
    settings = completion(client, n_predict=1, logit_bias=[[5, -1.5]])["generation_settings"]
    assert settings["logit_bias"] == [{"token": 5, "bias": -1.5}]


def test_the_progress_of_a_prompt_begins_with_what_was_found_and_ends_with_all_of_it(
    client: TestClient,
) -> None:
    text = "Once upon a time there was a little dog who lived in a house. " * 4
    body = {"prompt": text, "n_predict": 2, "stream": True, "return_progress": True}

    def progress() -> list[dict[str, int]]:
        lines = client.post("/completion", json=body).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        first = next(i for i, event in enumerate(events) if "prompt_progress" not in event)
        assert all("prompt_progress" not in event for event in events[first:])
        assert events[0]["timings"]["prompt_n"] == 0
        return [event["prompt_progress"] for event in events[:first]]

    first, again = progress(), progress()
    assert first[0]["cache"] == first[0]["processed"] == 0
    assert again[0]["cache"] == again[0]["processed"] > 0
    for steps in (first, again):
        done = [step["processed"] for step in steps]
        assert done == sorted({*done})
        assert {step["cache"] for step in steps} == {steps[0]["cache"]}
        assert done[-1] == steps[-1]["total"]
