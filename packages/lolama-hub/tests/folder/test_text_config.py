from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json

from lolama_core.model.config import LlamaConfig
from lolama_core.model.switches import Switches
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, ModelFiles
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.text_config import find_layout, read_model

PATH = Path("config.json")
SIZES: dict[str, JSON] = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
}


def read(values: dict[str, Any]) -> dict[str, JSON]:
    return read_model(PATH, values, find_layout(PATH, values))


def oracle(values: dict[str, Any]) -> Any:
    import transformers

    if values["model_type"] == "mistral" and values.get("num_key_value_heads", 8) is None:
        # transformers 5 refuses this null; 4 read it as everywhere else: one for each query head.
        values = values | {"num_key_value_heads": values["num_attention_heads"]}
    return transformers.AutoConfig.for_model(**values)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": None},
        {"num_key_value_heads": 4},
        {"head_dim": 6},
        {"rms_norm_eps": 1e-5},
        {"tie_word_embeddings": True},
        {"max_position_embeddings": 77},
        {"rope_theta": 5e5},
        {"rope_theta": 1000000},
        {"rope_scaling": None},
        {"rope_parameters": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
        {"rope_parameters": {"rope_theta": 123.0}, "rope_theta": 5.0},
        {"rope_parameters": {}, "rope_theta": 5.0},
        {"sliding_window": None},
        {"sliding_window": 9},
        {"attention_bias": True, "mlp_bias": True},
        {"attention_bias": False},
    ],
    ids=lambda changes: "-".join(changes) or "nothing",
)
def test_absent_and_null_mean_what_they_mean_to_transformers(
    model_type: str, changes: dict[str, Any]
) -> None:
    values = {"model_type": model_type, **SIZES, **changes}
    ours, theirs = read(json.loads(json.dumps(values))), oracle(values)
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    window = {"llama": None}.get(model_type, getattr(theirs, "sliding_window", None))
    biases = {"llama": getattr(theirs, "attention_bias", None), "mistral": False, "qwen2": "qkv"}
    assert ours == {
        "vocab_size": theirs.vocab_size,
        "d_model": theirs.hidden_size,
        "num_heads": theirs.num_attention_heads,
        "num_kv_heads": theirs.num_key_value_heads,
        "num_layers": theirs.num_hidden_layers,
        "hidden_dim": theirs.intermediate_size,
        "max_seq_len": theirs.max_position_embeddings,
        "rope_base": theirs.rope_parameters["rope_theta"],
        "eps": theirs.rms_norm_eps,
        "tie_word_embeddings": theirs.tie_word_embeddings,
        "head_dim": head_dim,
        "attention_bias": biases[model_type],
        "mlp_bias": theirs.mlp_bias if model_type == "llama" else False,
        "sliding_window": window,
        "rope_scaling": None,
    }
    LlamaConfig.from_json(ours)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_an_absent_key_is_what_it_is_to_transformers(model_type: str) -> None:
    import transformers

    theirs = transformers.AutoConfig.for_model(model_type)
    for name, value in LAYOUTS[model_type].defaults.items():
        if name == "rope_theta":
            theta = theirs.default_theta
            assert (theta["global"] if isinstance(theta, dict) else theta) == value
        elif name == "partial_rotary_factor":
            assert theirs.rope_parameters[name] == value
        elif name == "sliding_window" and not getattr(theirs, "use_sliding_window", True):
            assert not theirs.sliding_window  # 0 in qwen2_moe
        elif hasattr(theirs, name):
            assert getattr(theirs, name) == value, name
        else:
            assert name in NOT_KEPT, name


NOT_KEPT = {"sliding_window", "mlp_bias", "attention_bias"}
"""Keys that transformers' configurations of some architectures do not have, or have changed."""


def test_the_keys_are_those_of_llama_config() -> None:
    from dataclasses import fields

    plain = {f.name for f in fields(LlamaConfig)} - {f.name for f in fields(Switches)}
    assert read({"model_type": "llama", **SIZES}).keys() == plain


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────

QWEN = {"model_type": "qwen2", **SIZES, "max_position_embeddings": 64}
FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, 8),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, None),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 28}, None),
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, None),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": [SLIDING, SLIDING]}, 8),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": [FULL, FULL]}, None),
        ({"use_sliding_window": True, "sliding_window": 64, "layer_types": [FULL, SLIDING]}, None),
        ({"layer_types": None}, None),
    ],
)
def test_qwen2_windows_as_in_transformers(changes: dict[str, Any], window: int | None) -> None:
    assert read(QWEN | changes)["sliding_window"] == window
    theirs = oracle(QWEN | changes)
    if window is not None:
        assert (set(theirs.layer_types), theirs.sliding_window) == ({SLIDING}, window)
    elif theirs.sliding_window != 64:
        assert set(theirs.layer_types) == {FULL}


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "changes",
    [{"max_window_layers": 1}, {"layer_types": [FULL, SLIDING]}, {"layer_types": [SLIDING, FULL]}],
)
def test_windows_in_some_layers(changes: dict[str, Any], model_type: str) -> None:
    values = QWEN | {"model_type": model_type, "use_sliding_window": True, "sliding_window": 8}
    theirs, found = oracle(values | changes), read(values | changes)
    sliding = [layer for layer, kind in enumerate(theirs.layer_types) if kind == SLIDING]
    assert (found["sliding_window"], found["sliding_layers"]) == (theirs.sliding_window, sliding)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"layer_types": [SLIDING, SLIDING]}, "sliding_window"),
        ({"layer_types": [FULL]}, "layer_types"),
        ({"layer_types": [FULL, "linear_attention"]}, "layer_types"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"use_sliding_window": 1}, "use_sliding_window"),
        ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window"),
    ],
)
def test_impossible_windows_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        read(QWEN | changes)


def test_mistral_layer_types_must_agree_with_the_window() -> None:
    mistral = {"model_type": "mistral", **SIZES, "sliding_window": 8}
    assert read(mistral | {"layer_types": [SLIDING] * 2})["sliding_window"] == 8
    assert (
        read(mistral | {"sliding_window": None, "layer_types": [FULL] * 2})["sliding_window"]
        is None
    )
    for kinds in ([FULL, SLIDING], [FULL, FULL], "x"):
        with pytest.raises(ModelError, match="layer_types"):
            read(mistral | {"layer_types": kinds})


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────

LLAMA = {"model_type": "llama", **SIZES}


def refused(changes: dict[str, Any], base: dict[str, Any] = LLAMA) -> str:
    values = {key: value for key, value in (base | changes).items() if value is not ...}
    with pytest.raises(ModelError) as caught:
        read(values)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    "name", [*SIZES, "num_key_value_heads", "max_position_embeddings", "head_dim"]
)
@pytest.mark.parametrize(
    "value",
    [0, -1, True, 32.0, "32", float("nan"), float("inf"), [], {}, 10**12, 10**290, -(10**290)],
    ids=repr,
)
def test_row48_sizes_that_are_no_sizes(name: str, value: Any) -> None:
    assert name in refused({name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rms_norm_eps", [-1e-5, True, "1e-5", None, 2.0, float("nan"), 10**400]),
        ("rope_theta", [0, -1.0, True, "10000", None, float("inf"), 10**400]),
        ("tie_word_embeddings", [0, 1, "true", None]),
        ("attention_bias", [0, "qkv", None]),
        ("mlp_bias", [1, None]),
    ],
)
def test_row48_other_fields(name: str, values: list[Any]) -> None:
    for value in values:
        assert name in refused({name: value})


def test_row47_sizes_beyond_any_machine_are_refused_before_allocation(
    llama: Path, resolve: Callable[[Path], ModelFiles]
) -> None:
    for changes in (
        {"vocab_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**12},
        {"hidden_size": 10**9, "head_dim": None},
        {"head_dim": 10**9},
    ):
        original = (llama / "config.json").read_bytes()
        edit_json(llama / "config.json", **changes)
        with pytest.raises(ModelError):
            resolve(llama)
        (llama / "config.json").write_bytes(original)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_row47_nothing_read_is_as_long_as_a_number_says(model_type: str) -> None:
    layout = LAYOUTS[model_type]
    values: dict[str, Any] = {"model_type": model_type, **SIZES, "num_key_value_heads": 8}
    if "use_sliding_window" in layout.defaults:
        values |= {"use_sliding_window": True, "sliding_window": 8}
    numbers = {name for name, value in layout.defaults.items() if type(value) is int}
    for name in sorted({*SIZES, *numbers, "head_dim", "sliding_window"}):
        tracemalloc.start()
        with suppress(ModelError):
            read_model(PATH, {**values, name: 30_000}, layout)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000, name


def test_row48_digits_and_nesting(llama: Path, resolve: Callable[[Path], ModelFiles]) -> None:
    text = (llama / "config.json").read_text()
    for damaged in (
        text.replace('"vocab_size": 64', '"vocab_size": ' + "9" * 5000),
        text.replace('"vocab_size": 64', '"vocab_size": NaN'),
        text.replace('"vocab_size": 64', '"vocab_size": ' + "[" * 100000 + "]" * 100000),
        text[: len(text) // 2],
        "<!doctype html><html></html>",
        "",
        "[]",
    ):
        assert damaged != text
        (llama / "config.json").write_text(damaged)
        with pytest.raises(ModelError, match=r"config\.json"):
            resolve(llama)


def test_row49_heads_that_do_not_divide() -> None:
    assert "num_key_value_heads is 5, expected a divisor" in refused({"num_key_value_heads": 5})
    assert "num_attention_heads is 7" in refused(
        {"num_attention_heads": 7, "num_key_value_heads": 7}
    )
    assert "3 wide, expected an even number" in refused({"head_dim": 3})
    assert "1 wide, expected an even number" in refused({"hidden_size": 32})


@pytest.mark.parametrize("name", SIZES)
def test_row50_a_missing_field_is_named(name: str) -> None:
    assert f"the field {name} is missing" in refused({name: ...})


@pytest.mark.parametrize(
    "value", ["gpt2", "mllama", "LLAMA", "qwen3_next", "x" * 1000, "\x1b[2J", "", None, 1, ...]
)
def test_row50_an_unknown_architecture_is_named(value: Any) -> None:
    message = refused({"model_type": value})
    assert "model_type" in message and "docs/families.md lists" in message


@pytest.mark.parametrize(
    ("value", "nearest"),
    [("qwen3_next", "qwen3"), ("gemma3n_text", "gemma3_text"), ("granitemoeshared", "granitemoe")],
)
def test_row50_the_nearest_architectures_are_named(value: str, nearest: str) -> None:
    assert nearest in refused({"model_type": value}).split("the nearest that are: ")[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "relu2"}, "hidden_act is 'relu2'"),
        ({"hidden_act": None}, "hidden_act is None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quant_method 'gptq'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method 'awq'"),
        ({"quantization_config": {"load_in_8bit": True}}, "quant_method None"),
        ({"quantization_config": []}, "quant_method"),
    ],
)
def test_what_would_compute_something_else_is_refused_by_name(
    changes: dict[str, Any], named: str
) -> None:
    assert named in refused(changes)


def test_what_changes_nothing_is_ignored() -> None:
    extra = {
        "pretraining_tp": 4,
        "use_cache": False,
        "partial_rotary_factor": 1.0,
        "hidden_act": "swish",
        "quantization_config": None,
        "anything": {"at": ["all"]},
        "auto_map": {"AutoModel": "x.Y"},
    }
    assert read(LLAMA | extra) == read(LLAMA)
