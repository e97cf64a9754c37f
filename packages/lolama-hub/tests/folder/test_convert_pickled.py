from __future__ import annotations

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import assert_same_tensors, edit_json, read, save, tiny_model, write_json

from lolama_core.files.checkpoint_reader import open_checkpoint
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError, ResourceError
from lolama_core.protocols.types import ModelFiles
from lolama_hub import HuggingFaceSource

Resolve = Callable[[Path], ModelFiles]


def save_bin(model: Any, folder: Path, *, shards: int = 1) -> Path:
    save(model, folder)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    weight_map = {key: f"pytorch_model-{n % shards}.bin" for n, key in enumerate(state)}
    for name in set(weight_map.values()):
        torch.save({k: v for k, v in state.items() if weight_map[k] == name}, folder / name)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bin(tiny_model("llama"), tmp_path / "model")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert without a child process, which takes seconds to import torch; the command's tests have one."""

    def run_here(function: Callable[..., None], *arguments: object, **_: object) -> None:
        function(*arguments)

    monkeypatch.setattr("lolama_hub.folder.convert_pickled.run_in_child", run_here)


def refused(folder: Path, resolve: Resolve) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen2", {}), ("mistral", {})],
    ids=["llama", "llama-tied", "qwen2", "mistral"],
)
def test_row45_converted_to_the_same_tensors(
    model_type: str, changes: dict[str, Any], shards: int, tmp_path: Path, resolve: Resolve
) -> None:
    model = tiny_model(model_type, **changes)
    files = resolve(save_bin(model, tmp_path / "model", shards=shards))
    assert_same_tensors(files, model.state_dict())
    assert files.config["model"]["tie_word_embeddings"] is model.config.tie_word_embeddings
    store = tmp_path / "store"
    assert {location.path.suffix for location in files.tensors.values()} == {".safetensors"}
    assert all(location.path.is_relative_to(store) for location in files.tensors.values())


@pytest.mark.parametrize("model_type", ["gemma3_text", "glm", "phi3"])
def test_tensors_that_are_made_are_the_same_as_from_safetensors(
    model_type: str, tmp_path: Path, resolve: Resolve
) -> None:
    """Split, in another order, or with 1 added: once, while they are converted."""
    model = tiny_model(model_type, head_dim=4, pad_token_id=0)
    converted = read(resolve(save_bin(model, tmp_path / "pickled")))
    expected = read(resolve(save(model, tmp_path / "safe")))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in converted.items())


def test_row45_converted_once(
    folder: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = resolve(folder)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the weights were unpickled again")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", never)
        assert resolve(folder) == first
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["model.norm.weight"] += 1
    torch.save(weights, folder / "pytorch_model.bin")
    assert resolve(folder).tensors != first.tensors
    assert len(list((tmp_path / "store" / "converted").iterdir())) == 2


def test_row45_never_an_unrestricted_unpickle(
    folder: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    real = torch.load

    def recorded(*arguments: Any, **options: Any) -> Any:
        seen.append(options.get("weights_only"))
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "load", recorded)
    resolve(folder)
    assert seen == [True]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_row45_a_malicious_pickle_is_refused_and_not_run(
    form: str, folder: Path, tmp_path: Path, resolve: Resolve
) -> None:
    marker = tmp_path / "it-ran"
    content = {"model.norm.weight": torch.ones(2), "x": Payload(marker)}
    path = folder / "pytorch_model.bin"
    if form == "plain":
        path.write_bytes(pickle.dumps(content["x"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refused(folder, resolve)
    assert "pytorch_model.bin: is not a file of plain tensors" in message
    assert not marker.exists()
    assert not list((tmp_path / "store" / "converted").iterdir())
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert marker.exists()  # the payload does work


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(content[:40] + b"\xff" * 40 + content[80:])
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
    else:
        path.write_bytes({"empty": b"", "html": b"<html>", "garbage": bytes(range(256)) * 9}[how])


@pytest.mark.parametrize("how", ["truncated", "flipped", "zip", "empty", "html", "garbage"])
def test_row45_a_damaged_file_is_named(how: str, folder: Path, resolve: Resolve) -> None:
    damage(folder / "pytorch_model.bin", how)
    assert "pytorch_model.bin: is not a file of plain tensors" in refused(folder, resolve)


def test_row45_mutated_files(folder: Path, resolve: Resolve) -> None:
    path = folder / "pytorch_model.bin"
    original = path.read_bytes()
    rng = random.Random(3)
    refusals = 0
    for _ in range(200):
        content = bytearray(original)
        for _ in range(rng.randrange(1, 6)):
            # The pickle and the archive's directory, at either end, are what can go wrong in many ways.
            place = rng.choice(
                [rng.randrange(4000), -rng.randrange(1, 4000), rng.randrange(len(content))]
            )
            content[place] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([None, None, rng.randrange(len(content))])])
        try:
            resolve(folder)
        except ModelError as error:
            refusals += str(error).isprintable()
    assert refusals > 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(2)], "holds a list, expected named tensors"),
        ({"a": 1}, "holds 'a', which is no named tensor"),
        ({1: torch.ones(2)}, "holds 1, which is no named tensor"),
        ({"model": {"a": torch.ones(2)}}, "holds 'model', which is no named tensor"),
        ({"a": torch.ones(2).to_sparse()}, "'a' is sparse, quantized or empty"),
        ({"a": torch.ones(2, device="meta")}, "'a' is sparse, quantized or empty"),
        ({"a": torch.ones(2)}, "lacks"),
    ],
)
def test_row45_what_is_not_a_state_dict(
    content: object, said: str, folder: Path, resolve: Resolve
) -> None:
    torch.save(content, folder / "pytorch_model.bin")
    assert said in refused(folder, resolve)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_row43_other_dtypes_are_not_cast(
    dtype: torch.dtype, folder: Path, resolve: Resolve
) -> None:
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({k: v.to(dtype) for k, v in state.items()}, folder / "pytorch_model.bin")
    refused(folder, resolve)


def test_row44_not_a_number_is_named(folder: Path, resolve: Resolve) -> None:
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    torch.save(state, folder / "pytorch_model.bin")
    assert "layers.1.feed_forward.w_up.weight" in refused(folder, resolve)


def test_tied_copies_that_differ_are_both_kept(tmp_path: Path, resolve: Resolve) -> None:
    folder = save_bin(tiny_model("llama"), tmp_path / "model")
    edit_json(folder / "config.json", tie_word_embeddings=True)
    files = resolve(folder)
    assert files.config["model"]["tie_word_embeddings"] is False
    assert_same_tensors(files, tiny_model("llama").state_dict())


def test_rows40_and_41_a_bin_index_is_held_to_its_shards(tmp_path: Path, resolve: Resolve) -> None:
    folder = save_bin(tiny_model("llama"), tmp_path / "model", shards=2)
    path = folder / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    good = dict(index["weight_map"])
    for change, said in [
        ({"model.norm.weight": "../x.bin"}, "expected the plain name"),
        ({"model.norm.weight": "pytorch_model-7.bin"}, "pytorch_model-7.bin: does not exist"),
        ({"model.more": "pytorch_model-0.bin"}, "but no shard holds it"),
        (
            {"model.norm.weight": "pytorch_model-0.bin", "lm_head.weight": "pytorch_model-0.bin"},
            "but it is in",
        ),
    ]:
        write_json(path, {"weight_map": good | change})
        assert said in refused(folder, resolve)
    (folder / "pytorch_model-0.bin").unlink()
    write_json(path, {"weight_map": good})
    assert "pytorch_model-0.bin: does not exist" in refused(folder, resolve)


def test_the_conversion_is_a_lolama_checkpoint(folder: Path, resolve: Resolve) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    files = resolve(folder)
    [weights] = {location.path for location in files.tensors.values()}
    opened = open_checkpoint(weights.parent)
    assert opened.config == files.config
    assert opened.tensors == files.tensors
    assert opened.tokenizer.chat_template == "{{ messages }}"


def test_two_at_once_both_succeed(folder: Path, resolve: Resolve, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(resolve, [folder] * 4))
    assert all(result == results[0] for result in results)
    assert len(list((tmp_path / "store" / "converted").iterdir())) == 1


def test_a_store_that_cannot_be_made(folder: Path, io: CheckpointIO, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="set LOLAMA_HOME"):
        HuggingFaceSource(store=tmp_path / "file").resolve(str(folder), io)


def test_lolama_home_is_the_store(
    folder: Path, io: CheckpointIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    files = HuggingFaceSource().resolve(str(folder), io)
    [weights] = {location.path for location in files.tensors.values()}
    assert weights.is_relative_to(tmp_path / "home" / "converted")


@pytest.mark.parametrize("shards", [1, 2])
def test_row_104_a_tensor_that_is_the_negative_of_its_memory(
    tmp_path: Path, resolve: Resolve, shards: int
) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = torch._neg_view(-parameter.data)
    assert all(tensor.is_neg() for tensor in model.state_dict().values())
    folder = save_bin(model, tmp_path / "llama", shards=shards)
    assert_same_tensors(resolve(folder), tiny_model("llama").state_dict())


@pytest.mark.parametrize("shards", [1, 2])
def test_row_105_another_content_of_the_same_size_and_time(
    tmp_path: Path, resolve: Resolve, shards: int
) -> None:
    folder = tmp_path / "llama"
    first = tiny_model("llama")
    second = tiny_model("llama")
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.neg_()
    for model in (first, second):
        for path in folder.glob("*"):
            path.unlink()
        save_bin(model, folder, shards=shards)
        for path in folder.iterdir():
            os.utime(path, (0, 0))
        assert_same_tensors(resolve(folder), model.state_dict())


def test_row_105_a_second_name_or_a_moved_folder_is_not_converted_again(
    folder: Path, resolve: Resolve, tmp_path: Path
) -> None:
    resolve(folder)
    os.link(folder / "pytorch_model.bin", tmp_path / "other")
    (folder / "pytorch_model.bin").touch()
    resolve(folder)
    (tmp_path / "elsewhere").mkdir()
    resolve(folder.rename(tmp_path / "elsewhere" / folder.name))
    assert len(list((tmp_path / "store" / "converted").iterdir())) == 1
