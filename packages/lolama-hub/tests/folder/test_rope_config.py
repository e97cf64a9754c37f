from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core.model.config import LlamaConfig
from lolama_core.model.rope_frequencies import inverse_frequencies
from lolama_core.protocols.errors import ModelError
from lolama_hub.folder.text_config import find_layout, read_model

PATH = Path("config.json")
BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 256,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8192,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip


def read(changes: dict[str, Any]) -> LlamaConfig:
    values = copy.deepcopy(BASE | changes)
    return LlamaConfig.from_json(read_model(PATH, values, find_layout(PATH, values)))


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "linear-old": ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 32768),
    "linear-integer": ({"rope_scaling": {"type": "linear", "factor": 4}}, 32768),
    "linear-new": ({"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e6}}, 20480),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 5e5}, 16384),
    "llama3": ({"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "rope_theta": 5e5,
                "max_position_embeddings": 131072}, 131072),
    "llama3-new": ({"rope_parameters": {"rope_type": "llama3", **LLAMA3, "factor": 32.0, "rope_theta": 5e5},
                    "max_position_embeddings": 131072}, 131072),
    "yarn": ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 32768),
    "yarn-original": ({"rope_scaling": {"type": "yarn", "factor": 4.0,
                       "original_max_position_embeddings": 2048}}, 8192),
    "yarn-same-original": ({"rope_scaling": {"type": "yarn", "factor": 4.0,
                            "original_max_position_embeddings": 8192}}, 32768),
    "yarn-outside": ({"rope_scaling": {"type": "yarn", "factor": 4.0},
                      "original_max_position_embeddings": 1024}, 8192),
    "yarn-betas": ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2}}, 32768),
    "yarn-zero-betas": ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 0,
                         "beta_slow": None}}, 32768),
    "yarn-attention": ({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.5}}, 32768),
    "yarn-mscale": ({"rope_scaling": {"type": "yarn", "factor": 40.0, "mscale": 0.7,
                     "mscale_all_dim": 1.0}}, 327680),
    "yarn-half-mscale": ({"rope_scaling": {"type": "yarn", "factor": 40.0, "mscale": 0.7}}, 327680),
    "yarn-untruncated": ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4,
                          "truncate": False}}, 32768),
    "yarn-no-factor": ({"rope_scaling": {"type": "yarn", "factor": None,
                        "original_max_position_embeddings": 2048}}, 8192),
    "both-equal": ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
                    "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 1e4}, 32768),
    "empty": ({"rope_scaling": {}}, 8192),
    "type-default": ({"rope_scaling": {"type": "default"}, "rope_theta": 77.0}, 8192),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    changes, max_seq_len = CASES[name]
    ours = read(changes)
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(BASE | changes)))
    frequencies, factor = inverse_frequencies(ours.head_dim, ours.rope_base, ours.rope_scaling)
    torch.testing.assert_close(frequencies, theirs.inv_freq, rtol=1e-6, atol=0)
    assert factor == pytest.approx(theirs.attention_scaling, rel=1e-12)
    assert ours.max_seq_len == max_seq_len


def test_dynamic_starts_past_the_configured_length() -> None:
    scaling = read({"rope_scaling": {"type": "dynamic", "factor": 2.0}}).rope_scaling
    assert scaling is not None
    assert (scaling.type, scaling.factor, scaling.original_max_seq_len) == ("dynamic", 2.0, 8192)


def test_known_values_of_llama_3_1() -> None:
    config = read(CASES["llama3"][0])
    frequencies, _ = inverse_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
    expected = {30: 1.371893683e-3, 34: 1.785077911e-4, 63: 3.068925878e-7}
    for index, value in expected.items():
        assert frequencies[index].item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_scaling.type 'ntk' is not supp"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_scaling.short_factor is missing"),
        ({"rope_scaling": {"rope_type": "su"}}, "rope_scaling.rope_type 'su'"),
        ({"rope_parameters": {"rope_type": None}}, "rope_parameters.rope_type None"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope_parameters.rope_type a list"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_scaling.factor is 0.5"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "rope_scaling.factor is '4'"),
        ({"rope_scaling": {"type": "dynamic", "factor": float("inf")}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor is 1.0"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "original_max_position_embeddings": 0}}, "original"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": -1}}, "beta_fast is -1"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "attention_factor": 0.0}}, "attention_factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": 0}}, "truncate is 0"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ({"rope_scaling": [2.0]}, "rope_scaling is a list"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters is an object"),
        ({"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta is None"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "linear", "factor": 2.0}},
         "rope_parameters and rope_scaling disagree"),
    ],
)  # fmt: skip
def test_row50_unknown_or_impossible_scaling_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(changes)
    assert named in str(caught.value)
    assert "config.json" in caught.value.subject


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_theta is 1.0",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1}},
            "rope_theta is 1,",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2}},
            "beta_fast is 1",
        ),
    ],
)
def test_row_119_values_that_make_no_sense_together(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        read(changes)
