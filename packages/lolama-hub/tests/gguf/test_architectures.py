"""Architectures of llama.cpp against transformers: the same model as a GGUF file has the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf_cases import CASES, more, tiny_model
from gguf_files import read_gguf, write_gguf

from lolama_core import LlamaFamily, load_model
from lolama_hub.gguf.architectures import ARCHITECTURES

TOLERANCE = 1e-5
LENGTH = 40


def logits_of(path: Path, ids: torch.Tensor) -> torch.Tensor:
    files = read_gguf(path)
    with torch.inference_mode():
        return load_model(files, {"llama": LlamaFamily()})(ids)


def test_every_architecture_has_a_case() -> None:
    assert {architecture for architecture, _, _ in CASES.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    architecture, model_type, changes = CASES[case]
    model = tiny_model(model_type, changes)
    path = write_gguf(tmp_path / "tiny.gguf", architecture, model, more=more)
    ids = torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(ids).logits
    found = logits_of(path, ids)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1)
