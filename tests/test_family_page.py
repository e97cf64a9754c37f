"""docs/families.md tells what is read, and every other architecture of transformers is refused by name."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
from tests.family_differences import RESULTS, TEXT_CASES, largest, vision_cases
from tests.family_page import PAGE, page, refused, text_refusals
from tests.test_parity import TOLERANCE

from lolama_core.protocols.errors import ModelError
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.layouts.vision import VISION_LAYOUTS
from lolama_hub.folder.text_config import find_layout


def test_the_page_is_made_by_its_script() -> None:
    assert PAGE.read_text("utf-8") == page()


def test_every_family_is_as_near_as_it_is_promised() -> None:
    results = json.loads(RESULTS.read_text("utf-8"))
    found = largest(results)
    sees = {layout.model_type for layout in VISION_LAYOUTS.values() if layout.sees}
    assert found.keys() == LAYOUTS.keys() | sees
    assert all(0 < difference <= TOLERANCE for difference in found.values())
    pictures = chain.from_iterable(vision_cases().values())
    assert set(results["cases"]) == {*TEXT_CASES, *(f"{case}, pictures" for case in pictures)}
    page = PAGE.read_text("utf-8")
    for model_type, difference in found.items():
        assert any(
            row.startswith(f"| `{model_type}` |") and f" | {difference:.1e} | " in row
            for row in page.splitlines()
        ), model_type


def test_what_the_page_calls_refused_is_what_errors_refuse() -> None:
    reason = "layer_types is a list, expected one of a or b for each of 3 layers"
    assert refused(reason) == "`layer_types` other than one of a or b for each layer"
    assert (
        refused("rope_scaling.rope_type 'mrope' is not supported")
        == "`rope_scaling.rope_type` of other kinds, such as mrope"
    )
    assert "`clip_qkv` other than null: clipped queries, keys and values are not supported" in (
        text_refusals("olmoe") - text_refusals("olmo2")
    )


def test_every_other_architecture_is_refused_by_name() -> None:
    from transformers.models.auto import modeling_auto

    types = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(LAYOUTS)
    assert len(types) > 100
    for model_type in types:
        with pytest.raises(
            ModelError, match=f"model_type '{model_type}' is not supported; the nea"
        ):
            find_layout(Path("config.json"), {"model_type": model_type})
