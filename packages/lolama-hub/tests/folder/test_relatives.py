"""What is named beside an architecture that is not supported."""

from __future__ import annotations

import pytest

from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.relatives import RELATIVES, nearest_types


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("gpt_oss", ["mixtral"]),  # by descent alone
        ("qwen3_vl", ["qwen3", "qwen3_moe"]),  # by descent, and by its name
        ("qwen3_next", ["qwen3_moe", "qwen3"]),
        ("mistal", ["mistral", "mistral3"]),  # by its name alone
        ("bert", ["llama"]),  # nothing is like it
    ],
)
def test_relatives_stand_before_names(model_type: str, expected: list[str]) -> None:
    found = nearest_types(model_type, [*LAYOUTS, *VISION_LAYOUTS])
    assert found[: len(expected)] == expected and len(found) <= 3


def test_no_type_that_is_read_has_a_relative() -> None:
    supported = {*LAYOUTS, *VISION_LAYOUTS}
    assert not supported & RELATIVES.keys()
    assert supported >= set(RELATIVES.values())
