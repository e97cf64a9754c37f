from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lolama_core.files.checkpoint_reader import FileCheckpoint, is_finite, open_checkpoint
from lolama_core.files.checkpoint_writer import write_checkpoint
from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols import Checkpoint
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    JSON,
    CanonicalConfig,
    ModelFiles,
    TensorLocation,
    TokenizerFiles,
)
from lolama_core.testing import gguf_file
from lolama_core.testing.checkpoint import CheckpointSuite, tiny_config
from lolama_core.text.tokenizer_loading import load_tokenizer


def files(
    path: Path, tensors: dict[str, TensorLocation], config: CanonicalConfig | None = None
) -> ModelFiles:
    return ModelFiles(
        name="tiny",
        config=config or tiny_config(),
        tensors=tensors,
        tokenizer=TokenizerFiles(tokenizer_json=path / "tokenizer.json"),
    )


def saved(
    directory: Path, tensors: dict[str, Tensor], config: CanonicalConfig | None = None
) -> ModelFiles:
    """Files as a careless tool might have written them: safetensors itself checks nothing."""
    path = directory / "model.safetensors"
    save_file(tensors, path)
    places = {name: TensorLocation(path=path, key=name) for name in tensors}
    return files(directory, places, config)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A lolama checkpoint."""
    tensors = {"embed_tokens.weight": torch.randn(8, 4), "norm.weight": torch.ones(4)}
    write_checkpoint(
        tmp_path / "tiny", tiny_config(), tensors.items(), tokenizer_json="{}", chat_template="hi"
    )
    return tmp_path / "tiny"


class TestDirectory(CheckpointSuite):
    @pytest.fixture
    def checkpoint(self, directory: Path) -> Checkpoint:
        return FileCheckpoint(open_checkpoint(directory))


class TestMapped(CheckpointSuite):
    @pytest.fixture
    def checkpoint(self, directory: Path) -> Checkpoint:
        return FileCheckpoint(open_checkpoint(directory, immutable=True))


class TestShards(CheckpointSuite):
    """Two files, other names, one tensor transposed and another stored twice."""

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Checkpoint:
        one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
        save_file({"x": torch.randn(3, 2), "rest": torch.ones(1)}, one)
        save_file({"x": torch.randn(4).bfloat16()}, two)
        places = {
            "layers.0.a.weight": TensorLocation(path=one, key="x", transform=Tensor.t),
            "layers.0.b.weight": TensorLocation(path=two, key="x"),
            "layers.1.a.weight": TensorLocation(path=one, key="x"),
        }
        return FileCheckpoint(files(tmp_path, places))


def test_open_checkpoint(directory: Path) -> None:
    found = open_checkpoint(directory)
    assert found.family == "llama"
    assert found.config == tiny_config()
    assert found.tensors.keys() == {"embed_tokens.weight", "norm.weight"}
    assert found.tokenizer == TokenizerFiles(
        tokenizer_json=directory / "tokenizer.json", chat_template="hi"
    )
    (directory / "chat_template.jinja").unlink()
    assert open_checkpoint(directory).tokenizer.chat_template is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_row40_a_file_is_missing(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(ModelError, match="does not exist") as caught:
        open_checkpoint(directory)
    assert caught.value.subject == str(directory / name)


def test_a_model_without_tokenizer_is_loaded_and_says_so_when_text_comes(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    files = open_checkpoint(directory)
    assert files.tokenizer.tokenizer_json is None
    with pytest.raises(ModelError, match=r"has no tokenizer: neither tokenizer\.json"):
        load_tokenizer(files)
    link = directory / "tokenizer.json"
    link.symlink_to(directory / "gone.json")  # which is not the same as none
    with pytest.raises(ModelError, match="does not exist"):
        open_checkpoint(directory)


def test_a_checkpoint_is_written_without_tokenizer(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    write_checkpoint(tmp_path / "m", tiny_config(), tensors.items(), tokenizer_json=None)
    assert not (tmp_path / "m" / "tokenizer.json").exists()
    assert open_checkpoint(tmp_path / "m").tensors.keys() == {"a"}


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
)
def test_row38_a_file_is_a_pipe(directory: Path, name: str) -> None:
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(ModelError, match="pipe"):
        open_checkpoint(directory)


def test_no_directory(directory: Path) -> None:
    for path in (directory / "absent", directory / "config.json"):
        with pytest.raises(ModelError, match="is not a directory"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"format": None, "model_type": "llama"}, "pip install lolama-hub", id="hf"),
        pytest.param({"format": "x", "architectures": []}, "pip install lolama-hub", id="hf-old"),
        pytest.param({"format": None}, 'does not say "format": "lolama"', id="neither"),
        pytest.param({"format_version": 2}, "version 2; this lolama reads version 1", id="row81"),
        pytest.param({"format_version": "1"}, "format_version is '1'", id="version-text"),
        pytest.param({"format_version": True}, "format_version is true", id="version-bool"),
        pytest.param({"format_version": None}, "format_version is missing", id="version-null"),
        pytest.param({"family": ""}, "family is ''", id="family-empty"),
        pytest.param({"family": 3}, "family is 3", id="family-number"),
        pytest.param({"model": []}, "model is []", id="model-list"),
        pytest.param({"dtype": "int8"}, "expected float32 or bfloat16 or float16", id="dtype"),
        pytest.param({"dtype": ["float32"]}, "dtype is", id="dtype-list"),
        pytest.param({"generation": 1}, "generation is 1;", id="generation"),
        pytest.param({"generation": {"eos_ids": 2}}, "generation.eos_ids", id="eos-number"),
        pytest.param({"generation": {"eos_ids": [-1]}}, "generation.eos_ids", id="eos-negative"),
        pytest.param({"generation": {"eos_ids": [2.0]}}, "generation.eos_ids", id="eos-float"),
        pytest.param({"generation": {"vocab_size": 0}}, "generation.vocab_size", id="vocab-0"),
        pytest.param({"generation": {"vocab_size": True}}, "generation.vocab_size", id="vocab-t"),
        pytest.param({"generation": {"sampling": []}}, "generation.sampling is []", id="sampling"),
        pytest.param({"tokenizer": None}, "tokenizer is missing", id="tokenizer"),
        pytest.param({"tokenizer": {"bos_token": 1}}, "tokenizer.bos_token", id="bos-number"),
        pytest.param({"tokenizer": {"add_bos": 1}}, "tokenizer.add_bos", id="add-bos-number"),
        pytest.param({"quantization": 1}, "quantization is 1", id="quantization"),
        pytest.param(
            {"quantization": {"tensors": {"a": 1}}}, "quantization.tensors", id="declared"
        ),
        pytest.param({"source": "x"}, "source is 'x'", id="source"),
    ],
)
def test_config_refused(directory: Path, changes: dict[str, Any], reason: str) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**tiny_config(), **changes}))
    with pytest.raises(ModelError) as caught:
        open_checkpoint(directory)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("value", "spelled"),
    [("1", "'1'"), (True, "true"), (None, "null"), ({"5": 1}, '{"5": 1}'), ([[1, "a"]], '[[1, "a"]]')],
)  # fmt: skip
def test_row_262_a_recommended_setting_of_a_wrong_type_is_named(
    directory: Path, value: Any, spelled: str
) -> None:
    path = directory / "config.json"
    block = {"sampling": {"top_k": 5, "temperature": value}}
    path.write_text(json.dumps({**tiny_config(), "generation": block}))
    with pytest.raises(ModelError) as caught:
        open_checkpoint(directory)
    reason = (
        f"generation.sampling.temperature is {spelled}; expected a number or a list of token ids;"
    )
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_unknown_keys_are_ignored(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**tiny_config(), "new": 1}))
    assert open_checkpoint(directory).family == "llama"


def test_row41_key_in_the_wrong_shard(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "2.safetensors")
    places = {
        "a": TensorLocation(path=tmp_path / "1.safetensors", key="a"),
        "b": TensorLocation(path=tmp_path / "1.safetensors", key="b"),
    }
    with pytest.raises(ModelError, match=r"1\.safetensors: has no tensor 'b'"):
        FileCheckpoint(files(tmp_path, places))


def test_row40_shard_is_absent(tmp_path: Path) -> None:
    places = {"a": TensorLocation(path=tmp_path / "1.safetensors", key="a")}
    with pytest.raises(ModelError, match=r"1\.safetensors: does not exist"):
        FileCheckpoint(files(tmp_path, places))


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int32", "int64", "float64", "bool", "float8_e4m3fn"],
)
def test_row43_dtypes_that_weights_may_not_have(tmp_path: Path, dtype: str) -> None:
    found = saved(tmp_path, {"norm.weight": torch.ones(4).to(getattr(torch, dtype))})
    with pytest.raises(ModelError, match=r"'norm.weight' is \w+; weights are one of float32"):
        FileCheckpoint(found)


def test_row43_declared_tensors_may(tmp_path: Path) -> None:
    config = tiny_config()
    config["quantization"] = {"tensors": {"q": "I8", "f": "F8_E4M3"}}
    tensors = {"q": torch.ones(4, dtype=torch.int8), "f": torch.ones(2).to(torch.float8_e4m3fn)}
    read = dict(FileCheckpoint(saved(tmp_path, tensors, config)).tensors())
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        "q": torch.int8,
        "f": torch.float8_e4m3fn,
    }


def test_row43_declared_tensors_must(tmp_path: Path) -> None:
    config = tiny_config()
    config["quantization"] = {"tensors": {"q": "I8"}}
    found = saved(tmp_path, {"q": torch.ones(4)}, config)
    with pytest.raises(ModelError, match="'q' is F32, but the quantization block declares 'I8'"):
        FileCheckpoint(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_row44_non_finite_weights(
    tmp_path: Path, dtype: torch.dtype, value: str, place: int
) -> None:
    weight = torch.randn(1000).to(dtype)
    weight[place] = float(value)
    checkpoint = FileCheckpoint(saved(tmp_path, {"a": torch.ones(1), "b": weight}))
    with pytest.raises(ModelError, match=r"model\.safetensors: tensor 'b' holds NaN or Inf"):
        list(checkpoint.tensors())


def test_what_was_looked_through_before_is_not_again(tmp_path: Path) -> None:
    files = saved(tmp_path, {"a": torch.tensor([float("nan")])})
    with pytest.raises(ModelError, match="NaN"):
        dict(FileCheckpoint(files).tensors())
    assert dict(FileCheckpoint(replace(files, finite=True)).tensors())["a"].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_is_finite_agrees_with_isfinite(dtype: torch.dtype) -> None:
    """All bit patterns of sixteen bits, a row each; the extremes of each dtype are finite."""
    info = torch.finfo(dtype)
    assert is_finite(torch.tensor([info.min, info.max, info.tiny, -0.0], dtype=dtype))
    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.int16)
    values = patterns.view(torch.float16 if dtype == torch.float32 else dtype).to(dtype)
    assert [is_finite(row) for row in values.reshape(256, 256)] == [
        bool(row.isfinite().all()) for row in values.reshape(256, 256)
    ]


@pytest.mark.parametrize("size", [2**15 - 1, 2**15, 2**15 + 1, 2**21, 2**21 + 1])
def test_is_finite_looks_everywhere(size: int) -> None:
    """Around the sizes at which it begins to look in pieces, and stops doing so."""
    values = torch.ones(size, dtype=torch.bfloat16)
    assert is_finite(values)
    for place in (0, size // 2, size - 1):
        for value in ("nan", "-inf"):
            values[place] = float(value)
            assert not is_finite(values), (place, value)
            values[place] = 1


@pytest.mark.parametrize("immutable", [False, True])
def test_only_immutable_files_are_mapped(directory: Path, immutable: bool) -> None:
    """A map of any other file, were it cut short, would kill the process."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not list maps")
    found = open_checkpoint(directory, immutable=immutable)
    assert found.immutable == immutable
    tensors = dict(FileCheckpoint(found).tensors())
    assert (str(directory) in maps.read_text()) == immutable
    assert torch.equal(tensors["norm.weight"], torch.ones(4))


@pytest.mark.parametrize("immutable", [False, True])
def test_row46_cut_short_after_opening(directory: Path, immutable: bool) -> None:
    checkpoint = FileCheckpoint(open_checkpoint(directory, immutable=immutable))
    os.truncate(directory / "model.safetensors", 70_000)
    with pytest.raises(ModelError, match="changed while it was being read"):
        list(checkpoint.tensors())


def test_shapes_come_from_headers(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    save_file({"x": torch.randn(3, 2)}, path)
    places = {
        "plain": TensorLocation(path=path, key="x"),
        "turned": TensorLocation(path=path, key="x", transform=Tensor.t),
    }
    checkpoint = FileCheckpoint(files(tmp_path, places))
    assert checkpoint.shapes() == {"plain": (3, 2)}
    assert dict(checkpoint.tensors())["turned"].shape == (2, 3)


def blocks(path: Path, kind: str, rows: int, inputs: int, scale: float = 0.5) -> Tensor:
    """Write a tensor ``w`` of Q8_0 or Q4_K whose scales are all ``scale``, and a norm; its bytes."""
    number, values, size = {"Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}[kind]
    block = struct.pack("<e", scale) + bytes(one % 100 for one in range(size - 2))
    stored = block * (rows * inputs // values)
    tensors = [
        gguf_file.tensor("n", gguf_file.F32, (4,)),
        gguf_file.tensor("w", number, (rows, inputs), 32),
    ]
    norm = struct.pack("<4f", 1, 2, 3, 4) + bytes(16)
    path.write_bytes(gguf_file.gguf_bytes([], tensors, norm + stored))
    return torch.frombuffer(bytearray(stored), dtype=torch.uint8).reshape(rows, -1)


def q8_codes(stored: Tensor) -> Tensor:
    rows, size = stored.shape
    return stored.reshape(rows, size // 34, 34)[..., 2:].reshape(rows, -1).view(torch.int8)


def q8_scales(stored: Tensor) -> Tensor:
    rows, size = stored.shape
    parts = stored.reshape(rows, size // 34, 34)[..., :2].contiguous()
    return parts.view(torch.float16).reshape(rows, -1)


def of_blocks(path: Path, declared: dict[str, JSON]) -> ModelFiles:
    """A model of which a grouped weight's codes and scales are made of one tensor of blocks."""
    config = {**tiny_config(), "quantization": {"tensors": declared}}
    places = {
        "norm.weight": TensorLocation(path=path, key="n"),
        "q.weight": TensorLocation(path=path, key="w", transform=q8_codes),
        "q.block_scale": TensorLocation(path=path, key="w", transform=q8_scales),
    }
    return files(path.parent, places, cast(CanonicalConfig, config))


DECLARED: dict[str, JSON] = {"q.weight": "I8", "q.block_scale": "F16"}


@pytest.mark.parametrize("immutable", [False, True])
def test_a_file_of_gguf_is_read_and_its_blocks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, immutable: bool
) -> None:
    stored = blocks(tmp_path / "m.gguf", "Q8_0", 3, 64)
    keys, way = [], "map" if immutable else "read"
    read_one = getattr(TensorFile, way)

    def counted(file: TensorFile, key: str) -> Tensor:
        keys.append(key)
        tensor: Tensor = read_one(file, key)
        return tensor

    monkeypatch.setattr(TensorFile, way, counted)
    found = replace(of_blocks(tmp_path / "m.gguf", DECLARED), immutable=immutable)
    checkpoint = FileCheckpoint(found)
    assert checkpoint.shapes() == {"norm.weight": (4,)}
    tensors = dict(checkpoint.tensors())
    assert sorted(keys) == ["n", "w"]
    assert tensors["norm.weight"].tolist() == [1, 2, 3, 4]
    assert torch.equal(tensors["q.weight"], q8_codes(stored))
    assert torch.equal(tensors["q.block_scale"], torch.full((3, 2), 0.5).half())


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf")])
def test_row_439_scales_of_blocks_that_are_no_numbers(tmp_path: Path, scale: float) -> None:
    blocks(tmp_path / "m.gguf", "Q8_0", 3, 64, scale)
    found = of_blocks(tmp_path / "m.gguf", DECLARED)
    with pytest.raises(ModelError, match=r"'q\.block_scale' holds NaN or Inf"):
        list(FileCheckpoint(found).tensors())
    assert len(list(FileCheckpoint(replace(found, finite=True)).tensors())) == 3


def test_row_439_what_is_made_of_blocks_is_what_the_configuration_declares(tmp_path: Path) -> None:
    blocks(tmp_path / "m.gguf", "Q8_0", 3, 64)
    cases: list[tuple[dict[str, JSON], str]] = [
        ({"q.block_scale": "F16"}, r"'q\.weight' is I8; weights are one of"),
        ({**DECLARED, "q.block_scale": "F32"}, r"'q\.block_scale' is F16, but .* declares 'F32'"),
    ]
    for declared, message in cases:
        found = of_blocks(tmp_path / "m.gguf", declared)
        with pytest.raises(ModelError, match=message):
            list(FileCheckpoint(found).tensors())


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_row_439_blocks_alone_are_no_weights(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    blocks(path, kind, 3, 256)
    for declared in ({}, {"q": "U8"}):
        config = cast(CanonicalConfig, {**tiny_config(), "quantization": {"tensors": declared}})
        found = files(tmp_path, {"q": TensorLocation(path=path, key="w")}, config)
        with pytest.raises(ModelError, match=f"'q' is {kind}"):
            FileCheckpoint(found)


def test_a_model_may_lie_in_files_of_both_formats(tmp_path: Path) -> None:
    blocks(tmp_path / "m.gguf", "Q8_0", 3, 64)
    save_file({"x": torch.ones(2)}, tmp_path / "x.gguf")  # what counts is not the name
    places = {
        "a": TensorLocation(path=tmp_path / "m.gguf", key="n"),
        "b": TensorLocation(path=tmp_path / "x.gguf", key="x"),
    }
    checkpoint = FileCheckpoint(files(tmp_path, places))
    assert checkpoint.shapes() == {"a": (4,), "b": (2,)}
    assert {name: tensor.sum() for name, tensor in checkpoint.tensors()} == {"a": 10, "b": 2}


checkpoint_type: type[Checkpoint] = FileCheckpoint


def test_row_124_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF\3\0\0\0")
    (tmp_path / "b.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a model in GGUF, the format of llama\.cpp"):
        open_checkpoint(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="is not a directory"):
        open_checkpoint(tmp_path / "b.bin")
