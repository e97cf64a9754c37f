"""docs/families.md tells what is read, and every other architecture of transformers is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.family_page import PAGE, page

from lolama_core.protocols.errors import ModelError
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.text_config import find_layout


def test_the_page_is_made_by_its_script() -> None:
    assert PAGE.read_text("utf-8") == page()


def test_every_other_architecture_is_refused_by_name() -> None:
    from transformers.models.auto import modeling_auto

    types = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(LAYOUTS)
    assert len(types) > 100
    for model_type in types:
        with pytest.raises(
            ModelError, match=f"model_type '{model_type}' is not supported; the nea"
        ):
            find_layout(Path("config.json"), {"model_type": model_type})
