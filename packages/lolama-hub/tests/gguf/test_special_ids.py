"""Which tokens end a text, where a GGUF file says little of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lolama_hub.folder.fields import Fields
from lolama_hub.gguf.special_ids import read_special_ids

TEXTS = {0: "<s>", 1: "</s>", 2: "<|im_end|>", 3: "<|eot_id|>", 4: "a", 5: "<end_of_turn>"}


def ends(added: set[int], **values: int) -> list[int]:
    fields = Fields(Path("x.gguf"), {f"ggml.{name}": one for name, one in values.items()})
    return read_special_ids(fields, TEXTS, added, adds_bos=True)[1]


@pytest.mark.parametrize(
    ("added", "values", "expected"),
    [
        (set(), {}, []),
        ({0, 1, 2}, {}, [2]),  # </s> is a tag of HTML in some vocabularies
        ({0, 1, 2}, {"eos_token_id": 1}, [1, 2]),
        ({0, 1, 2, 3, 5}, {"eot_token_id": 4}, [2, 3, 4, 5]),
        ({0}, {"eos_token_id": 1, "eot_token_id": 3, "eom_token_id": 5}, [1, 3, 5]),
    ],
)
def test_ends_are_those_named_and_those_known(
    added: set[int], values: dict[str, int], expected: list[int]
) -> None:
    assert ends(added, **values) == expected


def test_defaults_hold_where_the_file_says_nothing() -> None:
    defaults = {"ggml.bos_token_id": 0, "ggml.eos_token_id": 1}
    for values, added, expected in (
        ({}, {0, 1}, ("<s>", "</s>", True)),
        ({}, {1}, (None, "</s>", False)),
        ({"ggml.eos_token_id": 2}, {0, 1}, ("<s>", "<|im_end|>", True)),
        ({"ggml.add_bos_token": False}, {0, 1}, ("<s>", "</s>", False)),
    ):
        fields = Fields(Path("x.gguf"), values)
        block, _ = read_special_ids(fields, TEXTS, added, adds_bos=True, defaults=defaults)
        assert (block["bos_token"], block["eos_token"], block["add_bos"]) == expected
