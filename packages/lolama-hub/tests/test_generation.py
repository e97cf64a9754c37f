from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json, write_json

from lolama_core.generation_config import GenerationConfig
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles

Resolve = Callable[[Path], ModelFiles]


@pytest.mark.parametrize(
    ("generation", "config", "eos_ids"),
    [
        ({"eos_token_id": 5}, 7, [5]),
        ({"eos_token_id": [9, 5, 9]}, 7, [5, 9]),
        ({"eos_token_id": 0}, 7, [0]),
        ({"eos_token_id": None}, 7, [7]),
        ({"eos_token_id": []}, [7, 6], [6, 7]),
        ({}, 7, [7]),
        (None, 7, [7]),
        (None, None, [2]),
        (None, ..., [2]),
    ],
)
def test_end_ids(
    generation: dict[str, Any] | None,
    config: Any,
    eos_ids: list[int],
    llama: Path,
    resolve: Resolve,
) -> None:
    (llama / "generation_config.json").unlink()
    if generation is not None:
        write_json(llama / "generation_config.json", generation)
    edit_json(llama / "config.json", eos_token_id=config)
    assert resolve(llama).config["generation"]["eos_ids"] == eos_ids


def test_nothing_ends_a_model_that_names_no_end(llama: Path, resolve: Resolve) -> None:
    write_json(llama / "generation_config.json", {})
    edit_json(llama / "config.json", eos_token_id=None)
    edit_json(llama / "tokenizer_config.json", eos_token=None)
    assert resolve(llama).config["generation"]["eos_ids"] == []


@pytest.mark.parametrize("value", [64, -1, True, 2.0, "2", [2, 64], [[2]], {"a": 1}, 10**200])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_end_ids_that_are_no_ids(name: str, value: Any, llama: Path, resolve: Resolve) -> None:
    write_json(llama / "generation_config.json", {})
    edit_json(llama / name, eos_token_id=value)
    with pytest.raises(ModelError, match=f"{name}: eos_token_id is"):
        resolve(llama)


def test_recommended_sampling(llama: Path, resolve: Resolve) -> None:
    values = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "typical_p": 0.95,
              "repetition_penalty": 1.05}  # fmt: skip
    write_json(llama / "generation_config.json", {"do_sample": True, "max_length": 4096, **values})
    sampling = resolve(llama).config["generation"]["sampling"]
    assert sampling == values
    GenerationConfig.sampling(**sampling)  # the names are its fields
    write_json(llama / "generation_config.json", {"do_sample": True, "top_p": None})
    assert resolve(llama).config["generation"]["sampling"] == {}
    for off in ({"do_sample": False}, {"do_sample": None}, {}):
        write_json(llama / "generation_config.json", values | off)
        assert resolve(llama).config["generation"]["sampling"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0), ("temperature", "0.7"), ("temperature", True), ("top_p", 1.5), ("top_p", -0.1),
        ("min_p", 2), ("typical_p", 10**200), ("repetition_penalty", 0), ("repetition_penalty", -2.0),
        ("top_k", 2.5), ("top_k", -1), ("top_k", True), ("do_sample", 1), ("do_sample", "true"),
    ],
)  # fmt: skip
def test_sampling_that_makes_no_sense_is_named(
    name: str, value: Any, llama: Path, resolve: Resolve
) -> None:
    write_json(llama / "generation_config.json", {"do_sample": True, name: value})
    with pytest.raises(ModelError, match=rf"generation_config\.json: {name} is"):
        resolve(llama)
