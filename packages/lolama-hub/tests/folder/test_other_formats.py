"""Folders, repositories and files of other formats are called what they are: row 124 of docs/faults.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import edit_json

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import ModelFiles
from lolama_hub import HuggingFaceSource
from lolama_hub.download.api import RemoteFile
from lolama_hub.download.selection import needed_files
from lolama_hub.folder.resolve import check_config

Resolve = Callable[[Path], ModelFiles]

CASES = {
    "adapter": (
        ["adapter_config.json", "adapter_model.safetensors"],
        "adapter",
        "merge_and_unload",
    ),
    "old adapter": (["adapter_model.bin"], "adapter", "merge_and_unload"),
    "GGML": (["ggml-model-q4_0.bin"], "GGML", "config.json and safetensors"),
    "Meta": (["consolidated.00.pth", "params.json", "tokenizer.model"], "Meta's original", "-hf"),
    "Mistral": (
        ["consolidated.safetensors", "params.json", "tekken.json"],
        "Mistral's original",
        "model-*.safetensors",
    ),
    "Diffusers": (["model_index.json"], "makes pictures", "use a language model"),
    "TensorFlow": (["tf_model.h5"], "TensorFlow", "safetensors"),
    "Flax": (["flax_model.msgpack"], "Flax", "safetensors"),
    "ONNX": (["decoder_model.onnx"], "ONNX", "safetensors"),
    "a program's own": (["model.pt"], "pickled", "safetensors"),
    "old MLX": (["weights.00.npz"], "MLX", "safetensors"),
}


def refused(folder: Path, resolve: Resolve) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    return str(caught.value)


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize(("names", "what", "remedy"), CASES.values(), ids=CASES)
def test_row_124_folders(
    llama: Path, resolve: Resolve, names: list[str], what: str, remedy: str, with_config: bool
) -> None:
    (llama / "model.safetensors").unlink()
    if not with_config:
        (llama / "config.json").unlink()
    for name in names:
        (llama / name).write_bytes(b"")
    message = refused(llama, resolve)
    assert message.startswith(f"{llama}: holds ") and what in message and remedy in message


@pytest.mark.parametrize(("names", "what", "remedy"), CASES.values(), ids=CASES)
def test_row_124_repositories(names: list[str], what: str, remedy: str) -> None:
    for folder in ("", "original/"):
        files = [RemoteFile(f"{folder}{name}", 1, "sha256:0") for name in names]
        with pytest.raises(ModelError) as caught:
            needed_files("owner/name", files)
        assert what in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"]
)
def test_row_124_shards_without_their_index(llama: Path, resolve: Resolve, name: str) -> None:
    stem, _, ending = name.rpartition(".")
    (llama / "model.safetensors").rename(llama / f"{stem}-00001-of-00002.{ending}")
    message = refused(llama, resolve)
    assert f"no {name}.index.json, which says what is in each such file" in message


def test_row_124_the_cache_of_hugging_face(tmp_path: Path, resolve: Resolve) -> None:
    for name in ("blobs", "refs", "snapshots"):
        (tmp_path / name).mkdir()
    assert "give the folder of one in its snapshots/" in refused(tmp_path, resolve)


def test_row_124_nothing_is_made_up(tmp_path: Path, llama: Path, resolve: Resolve) -> None:
    assert "config.json: does not exist; get the missing file" in refused(tmp_path, resolve)
    (llama / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    (llama / "adapter_config.json").write_text("{}")
    resolve(llama)  # weights that can be used are used, whatever lies beside them
    (llama / "model.safetensors").unlink()
    for name in ("model-Q4_K_M.gguf", "adapter_config.json"):
        (llama / name).unlink()
    (llama / "optimizer.pt").write_bytes(b"")
    assert "holds no weights: neither model.safetensors" in refused(llama, resolve)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"quantization": {"group_size": 64, "bits": 4}},
            r"quantized by MLX \(4 bits\); use the unq",
        ),
        ({"quantization": {"bits": "x"}}, "quantized by MLX"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quant_method 'gptq'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quant_method 'bitsandbytes'"),
    ],
)
def test_row_124_weights_that_another_program_quantized(
    llama: Path, resolve: Resolve, changes: dict[str, Any], words: str
) -> None:
    edit_json(llama / "config.json", **changes)
    with pytest.raises(ModelError, match=words):
        resolve(llama)
    for model_type in ("llama", "llava", "llava_next"):
        values = {**json.loads((llama / "config.json").read_text()), "model_type": model_type}
        with pytest.raises(ModelError, match=words):
            check_config(llama / "config.json", values, ["model.safetensors"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ggml-model-q4_0.bin", "is a model in GGML, an old format of llama.cpp"),
        ("consolidated.00.pth", "Meta's original format"),
        ("adapter_model.safetensors", "is an adapter"),
        ("model.safetensors", "is a file, not a folder"),
    ],
)
def test_row_124_files(
    tmp_path: Path, io: CheckpointIO, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    (tmp_path / name).write_bytes(b"lmgg")
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / name), f"./{name}", name):
        with pytest.raises(UsageError) as caught:
            HuggingFaceSource(tmp_path / "store").resolve(path, io)
        assert words in str(caught.value)


def test_row_124_a_gguf_that_is_not_there(tmp_path: Path, io: CheckpointIO) -> None:
    source = HuggingFaceSource(tmp_path / "store")
    for name in ("llama-2.Q4.gguf", "models/LLAMA.GGUF", str(tmp_path / "llama-2.Q4.gguf")):
        with pytest.raises(UsageError, match="there is no such file; check its path"):
            source.resolve(name, io)
