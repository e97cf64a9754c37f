"""Modules of lolama_hub by the names that they had in 0.1."""

from __future__ import annotations

import importlib
import sys

import pytest

MOVED = {
    "bin_conversion": "folder.convert_pickled",
    "child_process": "folder.child_process",
    "config": "folder.text_config",
    "fields": "folder.fields",
    "generation": "folder.generation_config",
    "hf_cache": "download.hf_cache",
    "hub_api": "download.api",
    "hub_errors": "download.errors",
    "layouts": "folder.layouts",
    "layouts.layout": "folder.layouts.layout",
    "layouts.llama": "folder.layouts.llama",
    "layouts.llava": "folder.layouts.llava",
    "layouts.mistral": "folder.layouts.mistral",
    "layouts.qwen2": "folder.layouts.qwen2",
    "locks": "store.locks",
    "model_folder": "folder.resolve",
    "retries": "download.retries",
    "rope": "folder.rope_config",
    "selection": "download.selection",
    "sentencepiece_conversion": "folder.convert_sentencepiece",
    "snapshots": "store.snapshots",
    "tokenizers": "folder.tokenizer_files",
    "transfer": "download.transfer",
    "vision_config": "folder.vision_config",
    "vision_folder": "folder.resolve_vision",
    "weights": "folder.weight_names",
}


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_module_is_the_new_one_and_warns(old: str, new: str) -> None:
    home = importlib.import_module(f"lolama_hub.{new}")
    sys.modules.pop(f"lolama_hub.{old}", None)
    message = f"^lolama_hub.{old} has moved: import lolama_hub.{new}; "
    with pytest.warns(DeprecationWarning, match=message):
        assert importlib.import_module(f"lolama_hub.{old}") is home
