from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from lolama_core import Tokenizer
from lolama_core.text.streamed_id import StreamedId


@pytest.fixture
def fox(byte_level: Tokenizer) -> StreamedId:
    return StreamedId.known(7, "fox", byte_level)


def test_row_250_one_id_alone_has_the_text_that_its_stream_found(
    byte_level: Tokenizer, fox: StreamedId
) -> None:
    for alone in ([fox], (fox,), fox):
        assert byte_level.decode(alone) == "fox"
        assert byte_level.decode(alone, skip_special_tokens=False) == byte_level.decode([7])


def test_row_250_several_ids_and_other_tokenizers_see_an_integer(
    byte_level: Tokenizer, byte_level_json: str, fox: StreamedId
) -> None:
    assert byte_level.decode([7]) != "fox"
    assert byte_level.decode([fox, fox]) == byte_level.decode([7, 7])
    assert byte_level.decode([fox, 8]) == byte_level.decode([7, 8])
    other = Tokenizer(byte_level_json)
    assert other.decode([fox]) == other.decode(fox) == byte_level.decode([7])
    assert byte_level.decode([StreamedId(7)]) == byte_level.decode([7])
    assert byte_level.is_special(fox) is byte_level.is_special(7)
    assert byte_level.ensure_bos([fox]) == byte_level.ensure_bos([7])


def test_row_250_it_is_an_integer(fox: StreamedId) -> None:
    assert isinstance(fox, int)
    assert (fox, hash(fox), str(fox), repr(fox), f"{fox:03d}") == (7, hash(7), "7", "7", "007")
    assert {7: "here"}[fox] == "here" and fox in {7} and 7 in {fox}
    assert fox < 8 and sorted([9, fox]) == [7, 9] and list(range(9))[fox] == 7


@pytest.mark.parametrize(
    "made",
    [
        int,
        copy.copy,
        copy.deepcopy,
        lambda one: copy.deepcopy([one])[0],
        lambda one: pickle.loads(pickle.dumps(one)),
        lambda one: pickle.loads(pickle.dumps([one], protocol=2))[0],
        lambda one: json.loads(json.dumps({"ids": [one]}))["ids"][0],
        lambda one: one + 0,
        lambda one: 0 + one,
        lambda one: +one,
        lambda one: one * 1,
        lambda one: torch.tensor([one])[0].item(),
        lambda one: torch.tensor([one]).tolist()[0],
        lambda one: np.array([one]).tolist()[0],
    ],
)
def test_row_250_what_is_made_of_it_is_a_plain_integer(fox: StreamedId, made: Any) -> None:
    assert type(made(fox)) is int and made(fox) == 7


def test_row_250_tensors_and_json_of_it_are_those_of_the_integer(fox: StreamedId) -> None:
    assert torch.tensor([fox, 8]).dtype == torch.int64
    assert json.dumps([fox, {fox: fox}]) == json.dumps([7, {7: 7}])
