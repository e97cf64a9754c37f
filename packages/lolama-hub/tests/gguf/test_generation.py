"""What a GGUF file says about generation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lolama_core.protocols.checkpoint import GGUFHeader
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import GenerationBlock
from lolama_hub.gguf.generation import read_generation
from lolama_hub.gguf.metadata import GGUFModel


def generation(**values: Any) -> GenerationBlock:
    metadata = {"general.architecture": "llama"}
    metadata |= {name.replace("__", "."): value for name, value in values.items()}
    header = SimpleNamespace(path=Path("a.gguf"), metadata=metadata, tensors={})
    model = GGUFModel([cast(GGUFHeader, header)])
    return read_generation(model, 6, [2])


def test_nothing_is_said() -> None:
    assert generation() == {"eos_ids": [2], "vocab_size": 6, "sampling": {}}


def test_recommended_settings() -> None:
    found = generation(
        general__sampling__temp=0.699999988079071,
        general__sampling__top_k=20,
        general__sampling__top_p=0.949999988079071,
        general__sampling__min_p=0.0,
        general__sampling__penalty_repeat=1.100000023841858,
        general__sampling__xtc_probability=0.5,
        general__sampling__xtc_threshold=0.25,
    )
    assert found["sampling"] == {
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.0,
        "repetition_penalty": 1.1,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.25,
    }
    assert "unsupported" not in found


def test_settings_that_are_not_followed_are_named() -> None:
    asked = {"general__sampling__mirostat": 2, "general__sampling__sequence": "top_k;temp"}
    assert generation(**asked).get("unsupported") == ["mirostat", "sequence"]
    assert "unsupported" not in generation(general__sampling__mirostat=0)
    assert "unsupported" not in generation(general__sampling__penalty_last_n=64)
    window = {"general__sampling__penalty_last_n": 64, "general__sampling__penalty_repeat": 1.1}
    assert generation(**window).get("unsupported") == ["penalty_last_n"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temp", -1.0), ("top_p", 1.5), ("top_k", -1), ("penalty_repeat", "x"), ("min_p", [0.1])],
)
def test_row_471_settings_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"general\.sampling\.{name} is .*, expected"):
        generation(**{f"general__sampling__{name}": value})
