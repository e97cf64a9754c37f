from __future__ import annotations

import pytest

from lolama_hub import registry


def test_the_six_aliases_and_their_repositories() -> None:
    assert {model.alias: model.repo for model in registry.MODELS} == {
        "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "open_llama_3b": "openlm-research/open_llama_3b_v2",
        "open_llama_7b": "openlm-research/open_llama_7b_v2",
        "llama7b": "meta-llama/Llama-2-7b-hf",
        "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
        "llava-med": "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
    }
    assert [m.alias for m in registry.MODELS if m.kind == "vision"] == ["llava-1.5-7b", "llava-med"]
    assert [m.alias for m in registry.MODELS if m.gated] == ["llama7b"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tinylama", "tinyllama"),
        ("TinyLlama", "tinyllama"),
        ("open_llama3b", "open_llama_3b"),
        ("llama-7b", "llama7b"),
        ("llava_med", "llava-med"),
        ("someone/tinyllma", "tinyllama"),
    ],
)
def test_the_closest_alias_is_suggested(typed: str, meant: str) -> None:
    assert registry.suggest(typed) == f"did you mean {meant}?"


def test_a_name_like_none_of_them_gets_the_list() -> None:
    advice = registry.suggest("zzz" * 2000)
    assert all(model.alias in advice for model in registry.MODELS)
