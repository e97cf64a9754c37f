from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import assert_same_tensors, save, tiny_model, write_json

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles

Resolve = Callable[[Path], ModelFiles]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save(tiny_model("llama"), tmp_path / "sharded", max_shard_size="4KB")


def refused(folder: Path, resolve: Resolve) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


def edit_index(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    edit(index["weight_map"])
    write_json(folder / INDEX, index)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "", "C:\\x.safetensors",
        "..\\x", "a\0b", "x" * 300, "\x1b[2J.safetensors", "\\\\server\\share", "a:b",
    ],
)  # fmt: skip
def test_row39_an_index_that_names_a_file_elsewhere(
    name: str, sharded: Path, resolve: Resolve
) -> None:
    (sharded.parent / "outside.safetensors").write_bytes(b"secret")
    edit_index(sharded, lambda names: names.update({"model.norm.weight": name}))
    assert "expected the plain name of a file beside it" in refused(sharded, resolve)


@pytest.mark.parametrize("value", [1, None, ["x"], {"a": "b"}, True])
def test_row39_an_index_that_names_no_file(value: Any, sharded: Path, resolve: Resolve) -> None:
    edit_index(sharded, lambda names: names.update({"model.norm.weight": value}))
    assert "expected a file name" in refused(sharded, resolve)


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": {}}', '{"weight_map": []}', "[]", "{", "<html>"]
)
def test_row39_an_index_that_is_none(content: str, sharded: Path, resolve: Resolve) -> None:
    (sharded / INDEX).write_text(content)
    assert INDEX in refused(sharded, resolve)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_row39_a_link_that_leaves_the_folder(name: str, llama: Path, resolve: Resolve) -> None:
    (llama / name).rename(llama.parent / name)
    (llama / name).symlink_to(f"../{name}")
    assert f"{name}: is a link that leaves the model's folder" in refused(llama, resolve)


def test_row39_a_link_to_nothing_or_to_itself(llama: Path, resolve: Resolve) -> None:
    (llama / "model.safetensors").unlink()
    for target in ("absent", "model.safetensors"):
        (llama / "model.safetensors").symlink_to(target)
        assert "model.safetensors: cannot be opened" in refused(llama, resolve)
        (llama / "model.safetensors").unlink()


def test_row39_links_inside_the_folder_are_fine(llama: Path, resolve: Resolve) -> None:
    (llama / "model.safetensors").rename(llama / "weights")
    (llama / "model.safetensors").symlink_to("weights")
    assert len(resolve(llama).tensors) == 21


def test_row39_the_hub_caches_own_links_are_fine(
    llama: Path, tmp_path: Path, resolve: Resolve
) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(llama.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert len(resolve(snapshot).tensors) == 21
    # A model folder may itself be reached through a link.
    (tmp_path / "link").symlink_to(snapshot)
    assert len(resolve(tmp_path / "link").tensors) == 21
    # Only the cache's own layout earns the exception.
    snapshot.parent.rename(tmp_path / "models--owner--name" / "other")
    assert "leaves the model's folder" in refused(
        tmp_path / "models--owner--name" / "other" / ("0" * 40), resolve
    )


def test_row40_a_listed_shard_that_is_absent(sharded: Path, resolve: Resolve) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name}: does not exist, though {INDEX} lists it" in refused(sharded, resolve)


def test_row41_a_key_in_the_wrong_shard(sharded: Path, resolve: Resolve) -> None:
    shards = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    held = json.loads((sharded / INDEX).read_text())["weight_map"]["model.norm.weight"]
    other = next(name for name in shards if name != held)
    edit_index(sharded, lambda names: names.update({"model.norm.weight": other}))
    message = refused(sharded, resolve)
    assert f"lists 'model.norm.weight' in '{other}', but it is in '{held}'" in message


def test_row41_a_key_that_no_shard_holds(sharded: Path, resolve: Resolve) -> None:
    held = sorted(path.name for path in sharded.glob("model-*.safetensors"))[0]
    edit_index(sharded, lambda names: names.update({"model.more.weight": held}))
    assert "'model.more.weight' in" in refused(sharded, resolve)
    assert "but no shard holds it" in refused(sharded, resolve)


def test_row41_a_key_that_is_not_listed(sharded: Path, resolve: Resolve) -> None:
    edit_index(sharded, lambda names: names.pop("model.norm.weight"))
    assert "does not list 'model.norm.weight', which 'model-" in refused(sharded, resolve)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
             "generation_config.json", "chat_template.jinja"]
)  # fmt: skip
def test_row38_what_is_no_file_does_not_hang(name: str, llama: Path, resolve: Resolve) -> None:
    (llama / name).unlink(missing_ok=True)
    os.mkfifo(llama / name)
    assert f"{name}: is not a regular file" in refused(llama, resolve)
    (llama / name).unlink()
    (llama / name).mkdir()
    assert f"{name}: is not a regular file" in refused(llama, resolve)
    (llama / name).rmdir()
    (llama / name).symlink_to("/dev/zero")
    assert name in refused(llama, resolve)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"1234567", ""),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\xff" * 8 + b"{}", ""),
    ],
)
def test_rows28_to_36_a_damaged_shard_is_named(
    content: bytes, said: str, sharded: Path, resolve: Resolve
) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[-1]
    shard.write_bytes(content)
    message = refused(sharded, resolve)
    assert shard.name in message
    assert said in message


def test_a_single_file_comes_before_shards_and_safetensors_before_bin(
    sharded: Path, llama: Path, resolve: Resolve
) -> None:
    (sharded / "pytorch_model.bin").write_bytes(b"not looked at")
    assert_same_tensors(resolve(sharded), tiny_model("llama").state_dict())
    (llama / INDEX).write_text("not looked at")
    assert_same_tensors(resolve(llama), tiny_model("llama").state_dict())
