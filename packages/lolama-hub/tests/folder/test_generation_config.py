from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json, write_json

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.settings import rows
from lolama_core.protocols.types import ModelFiles
from lolama_hub.folder import generation_config
from lolama_hub.folder.fields import Fields
from lolama_hub.folder.files import Folder
from lolama_hub.store.place import Store

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
    sampling: Any = resolve(llama).config["generation"]["sampling"]
    assert sampling == values
    GenerationConfig.sampling(**sampling)  # the names are its fields
    write_json(llama / "generation_config.json", {"do_sample": True, "top_p": None})
    assert resolve(llama).config["generation"]["sampling"] == {}
    for off in ({"do_sample": False}, {"do_sample": None}, {}):
        write_json(llama / "generation_config.json", values | off)
        # It counts in any case, as in transformers.
        assert resolve(llama).config["generation"]["sampling"] == {"repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"begin_suppress_tokens": [3], "min_length": 5}, ["begin_suppress_tokens", "min_length"]),
        ({"forced_eos_token_id": 2, "sequence_bias": [[[1], 2.0]]}, ["forced_eos_token_id", "sequence_bias"]),
        ({"no_repeat_ngram_size": 2, "suppress_tokens": [3]}, []),
        ({"bad_words_ids": [[1]], "min_new_tokens": 6}, []),
        ({"num_beams": 4, "guidance_scale": 1.5}, ["guidance_scale", "num_beams"]),
        ({"num_beams": 1, "guidance_scale": 1.0, "encoder_repetition_penalty": 1.0}, []),
        ({"suppress_tokens": [], "min_length": 0, "bad_words_ids": None, "token_healing": False}, []),
        ({"max_length": 4096, "max_new_tokens": 9, "use_cache": True, "pad_token_id": 0}, []),
        ({"epsilon_cutoff": 0.1, "eta_cutoff": 0.1}, []),
        ({"epsilon_cutoff": 0.1, "eta_cutoff": 0.0, "do_sample": True}, ["epsilon_cutoff"]),
        ({"temperature": 0.5, "top_p": 0.5, "repetition_penalty": 1.2}, []),
    ],
)  # fmt: skip
def test_row_107_settings_that_lolama_does_not_have(
    settings: dict[str, Any], missing: list[str], llama: Path, resolve: Resolve
) -> None:
    write_json(llama / "generation_config.json", settings)
    assert resolve(llama).config["generation"].get("unsupported", []) == missing


@pytest.mark.parametrize(
    ("settings", "unknown"),
    [
        ({"temprature": 0.6, "do_sample": True, "temperature": 0.7}, ["temprature"]),
        ({"temprature": 0, "repeat_penalty": 1.2}, ["repeat_penalty", "temprature"]),
        ({"num_predict": 5, "num_beams": 4, "seed": 1}, ["num_predict", "num_beams", "seed"]),
        ({"temprature": None}, []),
        ({"_from_model_config": True, "_name_or_path": "x", "transformers_version": "5.0.0"}, []),
        ({"generation_kwargs": {}, "return_legacy_cache": True, "assistant_lookbehind": 3}, []),
    ],
)
def test_row_267_names_that_nobody_knows_are_named(
    settings: dict[str, Any], unknown: list[str], llama: Path, resolve: Resolve
) -> None:
    write_json(llama / "generation_config.json", settings)
    block = resolve(llama).config["generation"]
    assert block.get("unsupported", []) == unknown
    assert block["sampling"].keys() <= {"temperature"}


def test_row_267_names_in_config_json_are_the_architectures(llama: Path, resolve: Resolve) -> None:
    (llama / "generation_config.json").unlink()
    edit_json(llama / "config.json", temprature=0.6, pretraining_tp=2, num_beams=4)
    assert resolve(llama).config["generation"]["unsupported"] == ["num_beams"]


def test_row_267_files_that_transformers_writes_have_no_unknown_name(
    llama: Path, resolve: Resolve
) -> None:
    import transformers

    transformers.GenerationConfig(eos_token_id=2).save_pretrained(llama)
    assert "unsupported" not in resolve(llama).config["generation"]


FORBIDDING: dict[str, Any] = {
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[1], [2, 3]],
    "min_new_tokens": 6,
    "suppress_tokens": [3, 63, 64, 10**6],
}


@pytest.mark.parametrize("samples", [True, False, None])
def test_row_107_settings_that_forbid_tokens(
    samples: bool | None, llama: Path, resolve: Resolve
) -> None:
    write_json(llama / "generation_config.json", {"do_sample": samples, **FORBIDDING})
    sampling: Any = resolve(llama).config["generation"]["sampling"]
    assert sampling == FORBIDDING
    GenerationConfig.greedy(**sampling)  # the names are its fields
    values: list[Any] = [None, 0, []]
    for off in values:
        names = [n for n, v in FORBIDDING.items() if off is None or isinstance(v, type(off))]
        write_json(llama / "generation_config.json", dict.fromkeys(names, off))
        assert resolve(llama).config["generation"]["sampling"] == {}


NONSENSE: dict[str, list[Any]] = {
    "no_repeat_ngram_size": [-1, 2.0, "2", True, [2], 10**200],
    "min_new_tokens": [-1, 2.0, "2", False, {}],
    "suppress_tokens": [3, 0, "3", {}, [-1], [1.0], [True], [[3]], ["3"]],
    "bad_words_ids": [3, False, "3", [3], [[]], [[1], []], [[64]], [[-1]], {"a": 1}, ["ab"], [[True]]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_row_107_settings_that_forbid_no_token_are_named(
    name: str, value: Any, llama: Path, resolve: Resolve
) -> None:
    write_json(llama / "generation_config.json", {name: value})
    with pytest.raises(ModelError, match=rf"generation_config\.json: {name} is"):
        resolve(llama)


SETTINGS: dict[str, Any] = {"do_sample": True, "temperature": 0.6, "num_beams": 4, **FORBIDDING}


def test_row_194_settings_in_config_json(llama: Path, resolve: Resolve) -> None:
    """As in transformers they count where there is no generation_config.json, and only there."""
    edit_json(llama / "config.json", **SETTINGS)
    write_json(llama / "generation_config.json", {})
    assert resolve(llama).config["generation"]["sampling"] == {}
    (llama / "generation_config.json").unlink()
    block = resolve(llama).config["generation"]
    assert block["sampling"] == {"temperature": 0.6, **FORBIDDING}
    assert block["unsupported"] == ["num_beams"]
    edit_json(llama / "config.json", bad_words_ids=[[99]])
    with pytest.raises(ModelError, match=r"/config\.json: bad_words_ids is"):
        resolve(llama)


def test_row_194_of_a_model_that_sees_the_outer_ones_go_first(
    llama: Path, io: CheckpointIO
) -> None:
    import transformers

    text: dict[str, Any] = {"no_repeat_ngram_size": 3, "min_new_tokens": 4, "suppress_tokens": [5]}
    outer: dict[str, Any] = {"no_repeat_ngram_size": 2, "min_new_tokens": None, "text_config": text}
    (llama / "generation_config.json").unlink()
    block = generation_config.read_generation(
        Folder(llama, io, Store(llama)),
        Fields(llama / "config.json", text, block="text_config"),
        vocab_size=64,
        tokenizer_size=64,
        tokenizer_eos=2,
        outer=outer,
    )
    expected = transformers.GenerationConfig.from_model_config(outer)
    assert block["sampling"] == {name: getattr(expected, name) for name in text}
    assert block["sampling"]["no_repeat_ngram_size"] == 2


def test_row_107_every_setting_of_transformers_was_looked_at() -> None:
    import transformers

    theirs = {name for name in transformers.GenerationConfig().to_dict() if name[0] != "_"}
    assert theirs <= generation_config._KNOWN
    assert not theirs & {*generation_config._UNKNOWN_TO_TRANSFORMERS}
    assert set(FORBIDDING) == {*generation_config._FORBIDDING}


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


def test_ranges_are_those_of_the_table_of_settings() -> None:
    table = rows(GenerationConfig)
    for name, (low, high) in generation_config._SAMPLING.items():
        check = table[name].check
        assert (getattr(check, "low"), getattr(check, "high")) == (low, high)  # noqa: B009 # of a number
