from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import read, save, tiny_model

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles

Resolve = Callable[[Path], ModelFiles]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tiny_model("phi3", pad_token_id=0), tmp_path / "model")


def test_a_fused_tensor_is_split(folder: Path, resolve: Resolve) -> None:
    stored = load_file(folder / "model.safetensors")
    tensors = read(resolve(folder))
    parts = [
        tensors[f"layers.1.attention.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj")
    ]
    assert [len(part) for part in parts] == [16, 8, 8]
    assert torch.equal(torch.cat(parts), stored["model.layers.1.self_attn.qkv_proj.weight"])
    parts = [tensors[f"layers.0.feed_forward.{name}.weight"] for name in ("w_gate", "w_up")]
    assert torch.equal(torch.cat(parts), stored["model.layers.0.mlp.gate_up_proj.weight"])
    # Each has memory of its own, and not that of the whole.
    assert parts[0].untyped_storage().nbytes() == parts[0].nbytes


@pytest.mark.parametrize("rows", [31, 33])
def test_a_fused_tensor_of_another_size_is_refused(
    folder: Path, resolve: Resolve, rows: int
) -> None:
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.qkv_proj.weight"
    save_file(stored | {name: torch.ones(rows, 16)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"{name}: has {rows} rows, expected 32"):
        read(resolve(folder))


def test_neighboring_pairs_become_pairs_of_halves(tmp_path: Path, resolve: Resolve) -> None:
    folder = save(
        tiny_model("glm", head_dim=8, num_key_value_heads=1, pad_token_id=0), tmp_path / "model"
    )
    stored = load_file(folder / "model.safetensors")["model.layers.0.self_attn.k_proj.bias"]
    [found] = [
        t for name, t in read(resolve(folder)).items() if name.endswith("0.attention.k_proj.bias")
    ]
    assert torch.equal(found, stored[[0, 2, 4, 5, 1, 3, 6, 7]])


def test_norms_of_gemma_become_what_they_multiply_with(tmp_path: Path, resolve: Resolve) -> None:
    model = tiny_model("gemma3_text", head_dim=8, pad_token_id=0).to(torch.bfloat16)
    stored, tensors = model.state_dict(), read(resolve(save(model, tmp_path / "model")))
    assert torch.equal(tensors["norm.weight"], 1 + stored["model.norm.weight"].float())
    name = "layers.1.attention.q_norm.weight"
    assert torch.equal(tensors[name], 1 + stored["model.layers.1.self_attn.q_norm.weight"].float())
