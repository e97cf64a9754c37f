"""Whole folders, as transformers saves them, against transformers' own state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folders import assert_same_tensors, edit_json, read, save, tiny_model

from lolama_core.model.config import LlamaConfig
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles

Resolve = Callable[[Path], ModelFiles]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-multi-head": ("llama", {"num_key_value_heads": 4}),
    "llama-multi-query": ("llama", {"num_key_value_heads": 1}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 10}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 8}),
    "mistral-no-window": ("mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    ),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "qwen3-tied": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen3-window": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
}


@pytest.mark.parametrize("shard_size", ["1GB", "4KB"], ids=["single", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_equals_transformers(
    name: str, shard_size: str, tmp_path: Path, resolve: Resolve
) -> None:
    model_type, changes = MODELS[name]
    model = tiny_model(model_type, **changes)
    files = resolve(save(model, tmp_path / "model", max_shard_size=shard_size))
    shards = {location.path.name for location in files.tensors.values()}
    assert len(shards) == 1 if shard_size == "1GB" else len(shards) > 2
    assert_same_tensors(files, model.state_dict())
    config = LlamaConfig.from_json(files.config["model"])
    assert config.tie_word_embeddings is model.config.tie_word_embeddings
    assert config.sliding_window == model.config.to_dict().get("sliding_window")
    assert files.config["dtype"] == "float32"
    assert files.family == "llama"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")],
    ids=["bf16", "f16"],
)
def test_dtype_is_that_of_the_linear_weights(
    dtype: torch.dtype, name: str, tmp_path: Path, resolve: Resolve
) -> None:
    model = tiny_model("llama").to(dtype)
    folder = save(model, tmp_path / "model")
    stored = load_file(folder / "model.safetensors")
    # Some publishers keep the norms in float32.
    mixed = {key: t.float() if "norm" in key else t for key, t in stored.items()}
    save_file(mixed, folder / "model.safetensors")
    edit_json(folder / "config.json", dtype="float64")  # what the file says does not matter
    assert resolve(folder).config["dtype"] == name


def resave(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Path:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    return folder


class TestTied:
    """Either copy alone, or both: the outcome is that of transformers' own loading."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return save(tiny_model("llama", tie_word_embeddings=True), tmp_path / "model")

    def loaded(self, folder: Path) -> dict[str, torch.Tensor]:
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        return dict(model.state_dict())

    def test_only_the_embedding(self, folder: Path, resolve: Resolve) -> None:
        files = resolve(folder)
        assert files.config["model"]["tie_word_embeddings"] is True
        assert "lm_head.weight" not in files.tensors
        assert_same_tensors(files, self.loaded(folder))

    def test_only_the_head(self, folder: Path, resolve: Resolve) -> None:
        resave(folder, lambda t: t | {"lm_head.weight": t.pop("model.embed_tokens.weight")})
        files = resolve(folder)
        assert files.config["model"]["tie_word_embeddings"] is True
        assert files.tensors["embed_tokens.weight"].key == "lm_head.weight"
        assert "lm_head.weight" not in files.tensors
        assert_same_tensors(files, self.loaded(folder))

    @pytest.mark.parametrize("offset", [0.0, 1.0], ids=["equal", "different"])
    def test_both(self, folder: Path, offset: float, resolve: Resolve) -> None:
        resave(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] + offset})
        files = resolve(folder)
        assert files.config["model"]["tie_word_embeddings"] is False
        assert_same_tensors(files, self.loaded(folder))

    def test_neither(self, folder: Path, resolve: Resolve) -> None:
        resave(folder, lambda t: {k: v for k, v in t.items() if k != "model.embed_tokens.weight"})
        with pytest.raises(ModelError, match=r"lacks 1 tensor \('model.embed_tokens.weight'\)"):
            resolve(folder)


def test_an_untied_model_needs_both(llama: Path, resolve: Resolve) -> None:
    resave(llama, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    with pytest.raises(ModelError, match=r"lacks 1 tensor \('lm_head.weight'\)"):
        resolve(llama)


@pytest.mark.parametrize("tied", [True, False])
def test_saved_from_the_bare_decoder(tied: bool, tmp_path: Path, resolve: Resolve) -> None:
    model = tiny_model("llama", tie_word_embeddings=tied)
    folder = save(model.model, tmp_path / "model")
    assert "embed_tokens.weight" in load_file(folder / "model.safetensors")
    if tied:
        assert_same_tensors(resolve(folder), model.state_dict())
    else:
        # transformers would invent a random head here.
        with pytest.raises(ModelError, match=r"lacks 1 tensor \('lm_head.weight'\)"):
            resolve(folder)


def test_derived_buffers_are_ignored(llama: Path, resolve: Resolve) -> None:
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
        "model.rotary_emb.inv_freq": torch.ones(2),
        "model.embeddings.position_ids": torch.arange(4),
    }
    resave(llama, lambda t: t | buffers)
    assert len(read(resolve(llama))) == 21


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.layers.1.mlp.up_proj.weight", "removed"),
        ("model.norm.weight", "removed"),
        ("model.layers.0.self_attn.q_proj.bias", "added"),
        ("model.layers.1.self_attn.q_proj.qweight", "added"),
        ("score.weight", "added"),
        ("embed_tokens.weight", "added"),
        ("model.layers.x.foo", "added"),
    ],
)
def test_row41_missing_and_extra_tensors_are_named(
    name: str, change: str, llama: Path, resolve: Resolve
) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if change == "added":
            return tensors | {name: torch.ones(2)}
        return {key: tensor for key, tensor in tensors.items() if key != name}

    resave(llama, damage)
    with pytest.raises(ModelError) as caught:
        resolve(llama)
    assert ("lacks" if change == "removed" else "holds, unasked for,") in str(caught.value)
    assert f"'{name}'" in str(caught.value)


def test_row41_a_layer_too_many_or_too_few(llama: Path, resolve: Resolve) -> None:
    for layers in (1, 3, 1000):
        edit_json(llama / "config.json", num_hidden_layers=layers)
        with pytest.raises(ModelError, match=f"holds layers 0 to 1, .*num_hidden_layers {layers}"):
            resolve(llama)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int8, torch.float8_e4m3fn])
def test_row43_a_dtype_that_weights_do_not_have(
    dtype: torch.dtype, llama: Path, resolve: Resolve
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    resave(llama, lambda t: t | {name: t[name].to(dtype)})
    with pytest.raises(ModelError, match=r"up_proj.weight' is '.*expected one of F32, BF16, F16"):
        resolve(llama)


def test_an_old_style_folder(tmp_path: Path, resolve: Resolve) -> None:
    """config.json as of 2023: no head_dim, kv heads, biases or RoPE block; ``torch_dtype``."""
    model = tiny_model("llama", num_key_value_heads=4)
    folder = save(model, tmp_path / "model")
    kept = (
        "model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "max_position_embeddings rms_norm_eps tie_word_embeddings hidden_act"
    ).split()
    values = json.loads((folder / "config.json").read_text())
    old = {key: values[key] for key in kept} | {"torch_dtype": "float16", "pretraining_tp": 2}
    (folder / "config.json").write_text(json.dumps(old))
    files = resolve(folder)
    assert_same_tensors(files, model.state_dict())
    config = LlamaConfig.from_json(files.config["model"])
    assert (config.num_kv_heads, config.head_dim, config.rope_base) == (4, 4, 10000.0)
