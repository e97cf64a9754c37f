from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from lolama_core import Llama, LlamaConfig, RopeScaling
from lolama_core.model.rope_scaling import ROPE_TYPES
from lolama_core.protocols.errors import ModelError

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "num_heads": 4,
    "num_layers": 2,
    "hidden_dim": 48,
}


def test_defaults_are_llama_1() -> None:
    config = LlamaConfig(**SMALL)
    assert (config.num_kv_heads, config.head_dim) == (4, 8)
    assert (config.rope_base, config.eps, config.tie_word_embeddings) == (10000.0, 1e-5, False)
    assert config.rope_scaling is None and config.sliding_window is None


def test_the_readme_example_is_accepted() -> None:
    config = LlamaConfig(
        vocab_size=32000,
        d_model=2048,
        num_heads=32,
        num_kv_heads=8,
        num_layers=22,
        hidden_dim=5632,
        max_seq_len=4096,
        rope_base=10000,
    )
    assert config.head_dim == 64


def test_json_and_back() -> None:
    scaling = RopeScaling(type="yarn", factor=4.0, original_max_seq_len=32)
    config = LlamaConfig(**SMALL, attention_bias="qkv", sliding_window=7, rope_scaling=scaling)
    assert LlamaConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "field", ["vocab_size", "d_model", "num_heads", "num_layers", "hidden_dim"]
)
@pytest.mark.parametrize(
    "value",
    [0, -1, True, 2.0, "32", float("nan"), 10**12, pytest.param(10**5000, id="huge"), None, [], {}],
)
def test_row47_row48_sizes_are_positive_and_possible(field: str, value: object) -> None:
    with pytest.raises(ModelError, match=field) as caught:
        LlamaConfig(**{**SMALL, field: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_seq_len", 0),
        ("num_kv_heads", 0),
        ("head_dim", -2),
        ("rope_base", float("inf")),
        ("rope_base", "10000"),
        ("rope_base", 0),
        ("eps", -1e-5),
        ("eps", True),
        ("tie_word_embeddings", 1),
        ("mlp_bias", "no"),
        ("attention_bias", "kv"),
        ("attention_bias", 1),
        ("sliding_window", 0),
        ("sliding_window", 4.0),
        ("rope_scaling", "llama3"),
    ],
)
def test_row48_every_field_is_checked(field: str, value: object) -> None:
    with pytest.raises(ModelError, match=field):
        LlamaConfig(**{**SMALL, field: value})


def test_row49_heads_must_divide() -> None:
    with pytest.raises(ModelError, match=r"num_kv_heads: is 3, .*divisor of num_heads \(4\)"):
        LlamaConfig(**SMALL, num_kv_heads=3)
    with pytest.raises(ModelError, match=r"num_heads: is 5, .*divisor of d_model \(32\)"):
        LlamaConfig(**{**SMALL, "num_heads": 5})
    with pytest.raises(ModelError, match=r"head_dim: is 7, .*even"):
        LlamaConfig(**SMALL, head_dim=7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "longrope"}, "longrope"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"original_max_seq_len": 0}, "original_max_seq_len"),
        ({"low_freq_factor": 4.0}, "high_freq_factor"),
        ({"truncate": 1}, "truncate"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_row50_rope_scaling_is_named(change: dict[str, object], named: str) -> None:
    good: dict[str, Any] = {"type": "llama3", "factor": 8.0, "original_max_seq_len": 64}
    LlamaConfig(**{**SMALL, "rope_scaling": good})
    with pytest.raises(ModelError, match=named):
        LlamaConfig(**{**SMALL, "rope_scaling": {**good, **change}})


def test_row50_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(ModelError, match="hidden_dim"):
        LlamaConfig.from_json({k: v for k, v in SMALL.items() if k != "hidden_dim"})
    with pytest.raises(ModelError, match="color"):
        LlamaConfig.from_json({**SMALL, "color": "red"})


@pytest.mark.parametrize(
    ("base", "scaling", "named"),
    [
        (1.0, {}, "config rope_base: is 1.0, expected a number above 1, with yarn"),
        (1, {}, "config rope_base: is 1, expected"),
        (1e4, {"beta_fast": 1.0, "beta_slow": 32.0}, "beta_fast: is 1.0, expected no less than"),
    ],
)
def test_row_119_values_that_make_no_sense_together(
    base: float, scaling: dict[str, object], named: str
) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_seq_len": 128, **scaling}
    with pytest.raises(ModelError, match=named):
        LlamaConfig(**{**SMALL, "rope_base": base, "rope_scaling": yarn})


@pytest.mark.parametrize("seed", range(20))
def test_row_119_values_in_range_are_a_model_or_refused(seed: int) -> None:
    pick = random.Random(seed).choice
    for _ in range(20):
        scaling = {
            "type": pick(ROPE_TYPES),
            "factor": pick([1, 1.0000001, 4.0, 1e6]),
            "original_max_seq_len": pick([1, 128, 1 << 24]),
            "low_freq_factor": pick([1e-6, 1.0, 1e5]),
            "high_freq_factor": pick([2e-6, 4.0, 1e6]),
            "beta_fast": pick([1e-6, 1.0, 32.0, 1e6]),
            "beta_slow": pick([1e-6, 1.0, 32.0, 1e6]),
            "attention_factor": pick([None, 1e-6, 1.0, 1e6]),
            "truncate": pick([True, False]),
        }
        try:
            config = LlamaConfig(
                **{**SMALL, "num_layers": 1},
                max_seq_len=pick([8, 1 << 24]),
                rope_base=pick([1.0, math.nextafter(1.0, 2), 1.0000001, 1.1, 1e4, 1e12]),
                head_dim=pick([2, 4, 256]),
                rope_scaling=scaling,  # type: ignore[arg-type] # a mapping is read as one
            )
        except ModelError:
            continue
        assert Llama(config)(torch.zeros(1, 8, dtype=torch.long)).isfinite().all()
