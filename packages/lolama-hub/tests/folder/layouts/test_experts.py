"""Folders of mixtures of experts, as they are published and with all experts of a layer in one tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import read, save, tiny_model

from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.text_config import read_model

Resolve = Callable[[Path], ModelFiles]
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 20,
        "mlp_only_layers": [0],
    },
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "head_dim": 8,
    },
    "granitemoe": {"num_local_experts": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "eos_token_id": 2},
}


def folder_of(model_type: str, folder: Path, *, fused: bool) -> Path:
    model = tiny_model(model_type, **EXPERTS[model_type])
    return save(model, folder, save_original_format=not fused)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_fused_tensors_are_the_same_model(
    model_type: str, tmp_path: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = read(resolve(folder_of(model_type, tmp_path / "apart", fused=False)))
    reads: list[str] = []
    read_one = TensorFile.read

    def counted(file: TensorFile, name: str) -> torch.Tensor:
        reads.append(name)
        return read_one(file, name)

    monkeypatch.setattr(TensorFile, "read", counted)
    fused = read(resolve(folder_of(model_type, tmp_path / "fused", fused=True)))
    assert fused.keys() == apart.keys()
    assert all(torch.equal(fused[name], apart[name]) for name in apart)
    assert len(reads) == len(set(reads)), "a tensor of all experts is read once"
    assert len({tensor.untyped_storage().data_ptr() for tensor in fused.values()}) == len(fused)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_row_335_experts_that_are_missing_or_too_many(
    model_type: str, tmp_path: Path, resolve: Resolve
) -> None:
    for fused in (False, True):
        folder = folder_of(model_type, tmp_path / str(fused), fused=fused)
        path = folder / "config.json"
        values = json.loads(path.read_text())
        name = "num_experts" if "num_experts" in values else "num_local_experts"
        for count in (3, 5):
            path.write_text(json.dumps({**values, name: count}))
            with pytest.raises(ModelError, match="must be of the same model") as caught:
                read(resolve(folder))
            assert "experts" in str(caught.value) or "gate" in str(caught.value)


def test_row_335_a_fused_tensor_of_another_width(tmp_path: Path, resolve: Resolve) -> None:
    folder = folder_of("olmoe", tmp_path / "olmoe", fused=True)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.experts.gate_up_proj"
    weights[name] = weights[name][:, 2:].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{name}: has .* rows, expected"):
        read(resolve(folder))


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 64,
}


def block(model_type: str, **changes: Any) -> dict[str, Any]:
    values = {"model_type": model_type, **SIZES, **changes}
    return read_model(Path("config.json"), values, LAYOUTS[model_type])


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("mixtral", "num_local_experts", 0),
        ("mixtral", "num_local_experts", None),
        ("mixtral", "num_local_experts", 10**9),
        ("mixtral", "num_experts_per_tok", 9),
        ("qwen2_moe", "moe_intermediate_size", 0),
        ("qwen2_moe", "shared_expert_intermediate_size", 0),
        ("qwen2_moe", "decoder_sparse_step", 0),
        ("qwen2_moe", "mlp_only_layers", "01"),
        ("qwen2_moe", "mlp_only_layers", [True]),
        ("qwen2_moe", "qkv_bias", 1),
        ("qwen3_moe", "norm_topk_prob", None),
        ("qwen3_moe", "layer_types", ["sliding_attention"] * 4),
        ("olmoe", "clip_qkv", 8.0),
    ],
)
def test_row_336_fields_of_experts_that_make_no_sense(
    model_type: str, field: str, value: object
) -> None:
    with pytest.raises(ModelError, match=f"config.json: {field} is .*, expected"):
        block(model_type, **{field: value})


def test_row_336_two_numbers_of_experts() -> None:
    assert block("qwen3_moe", num_experts=16)["num_experts"] == 16
    assert block("qwen3_moe", num_local_experts=16)["num_experts"] == 16
    assert block("qwen3_moe", num_local_experts=16, num_experts=16)["num_experts"] == 16
    with pytest.raises(ModelError, match="num_experts is 8, expected 16, as num_local_experts"):
        block("qwen3_moe", num_local_experts=16, num_experts=8)


def test_layers_without_experts() -> None:
    assert block("qwen2_moe", decoder_sparse_step=2)["dense_layers"] == [0, 2]
    assert block("qwen3_moe", mlp_only_layers=[3, 7])["dense_layers"] == [3]
    assert "dense_layers" not in block("qwen3_moe", mlp_only_layers=None)
