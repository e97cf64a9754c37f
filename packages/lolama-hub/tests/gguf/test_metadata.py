"""Metadata of GGUF files: numbers as they were meant, and rotary embeddings."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import llama3_factors

from lolama_core.files.safetensors_header import TensorInfo
from lolama_core.protocols.checkpoint import GGUFHeader
from lolama_core.protocols.errors import ModelError
from lolama_hub.gguf.metadata import GGUFModel, read_rope

WIDTH = 64


@dataclass(frozen=True)
class Header:
    """What a file would say."""

    metadata: Mapping[str, Any]
    factors: Mapping[str, list[float]] = field(default_factory=dict)
    path: Path = Path("a.gguf")
    version: int = 3

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {name: TensorInfo("F32", (len(one),), 0, 0) for name, one in self.factors.items()}

    def numbers(self, name: str) -> list[float]:
        return [float(each) for each in torch.tensor(self.factors[name])]


def model(factors: Mapping[str, list[float]] | None = None, **values: Any) -> GGUFModel:
    own = {"context_length": 4096, "attention.key_length": WIDTH}
    own |= {name.replace("__", "."): value for name, value in values.items()}
    metadata = {f"llama.{name}": value for name, value in own.items()}
    header: GGUFHeader = Header({"general.architecture": "llama", **metadata}, factors or {})
    return GGUFModel([header])


@pytest.mark.parametrize(
    "value", [0.22, 1e-6, 1.5625e-7, 10000.0, 500000.0, 0.0078125, 1.2079441541679836, 3.4e38]
)
def test_numbers_are_those_that_were_meant(value: float) -> None:
    [stored] = struct.unpack("f", struct.pack("f", value))
    found = model(a=stored).number("a", low=0.0, high=4e38)
    assert struct.pack("f", found) == struct.pack("f", value)
    assert found == value or len(repr(found)) < len(repr(value))


def test_numbers_of_float64_and_others_stay() -> None:
    values = [0.1234567890123, float("inf"), 1e300, True, 3, "x"]
    own = model(None, **{f"v{place}": value for place, value in enumerate(values)})
    assert [own.get(f"v{place}") for place in range(len(values))] == values


@pytest.mark.parametrize("factor", [8.0, 16.0, 32.0])
@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1000000.0])
def test_the_scaling_of_llama_3_is_found_in_its_factors(theta: float, factor: float) -> None:
    settings = {
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    factors = llama3_factors(settings, WIDTH).tolist()
    found = read_rope(model({"rope_freqs.weight": factors}, rope__freq_base=theta))
    if max(factors) == factor:
        assert found == {"rope_type": "llama3", **settings}
    else:  # no pair of these turns slowly enough to show it
        assert found["rope_type"] == "longrope"


def test_other_factors_stay_factors() -> None:
    factors = [1.0 + place for place in range(WIDTH // 2)]
    found = read_rope(model({"rope_freqs.weight": factors}))
    assert found["short_factor"] == found["long_factor"] == factors
    assert found["attention_factor"] == found["factor"] == 1.0


def test_factors_that_change_nothing() -> None:
    assert read_rope(model({"rope_freqs.weight": [1.0] * (WIDTH // 2)})) == {"rope_theta": 10000.0}


def test_a_part_of_each_head() -> None:
    for width in range(2, WIDTH, 2):
        part = read_rope(model(rope__dimension_count=width))["partial_rotary_factor"]
        assert isinstance(part, float) and int(WIDTH * part) == width
    assert "partial_rotary_factor" not in read_rope(model(rope__dimension_count=WIDTH))
    with pytest.raises(ModelError, match="dimension_count is 66, expected an integer from 1 to 64"):
        read_rope(model(rope__dimension_count=WIDTH + 2))


def test_linear_scaling_under_both_names() -> None:
    plain = {"rope_theta": 10000.0}
    linear: dict[str, object] = {**plain, "rope_type": "linear", "factor": 4.0}
    linear["original_max_position_embeddings"] = 4096
    assert read_rope(model()) == plain
    assert read_rope(model(rope__scaling__type="none", rope__scaling__factor=4.0)) == plain
    assert read_rope(model(rope__scaling__type="linear", rope__scaling__factor=0.0)) == plain
    assert read_rope(model(rope__scaling__factor=4.0)) == linear
    assert read_rope(model(rope__scale_linear=4.0)) == linear
    shorter = model(rope__scaling__factor=4.0, rope__scaling__original_context_length=2000)
    assert read_rope(shorter)["original_max_position_embeddings"] == 2000
