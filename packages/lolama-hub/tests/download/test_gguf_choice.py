"""Models in GGUF of the Hub: which file of a repository, under which name it is kept, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import write_gguf
from tiny_folders import tiny_model

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import ModelError, NetworkError, UsageError
from lolama_core.protocols.source import DownloadPlan
from lolama_hub import HuggingFaceSource
from lolama_hub.download.api import RemoteFile
from lolama_hub.download.gguf_choice import choices, choose, label_of
from lolama_hub.testing.stand_in_hub import StandInHub

NAME = "owner/model-GGUF"
IO = FileCheckpointIO()


def files(**sizes: int) -> list[RemoteFile]:
    return [RemoteFile(f"model-{label}.gguf", size, "") for label, size in sizes.items()]


@pytest.mark.parametrize(
    ("stem", "label"),
    [
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M", "Q4_K_M"),
        ("Qwen3-0.6B-Q8_0", "Q8_0"),
        ("qwen2.5-0.5b-instruct-q4_k_m", "Q4_K_M"),
        ("gemma-3-4b-it-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("model-IQ4_XS", "IQ4_XS"),
        ("model.bf16", "BF16"),
        ("Q8_0", "Q8_0"),
        ("my model", "my-model"),
    ],
)
def test_labels(stem: str, label: str) -> None:
    assert label_of(stem) == label


def test_choices() -> None:
    listed = [
        "README.md",
        "config.json",
        "mmproj-model-f16.gguf",
        "model-Q4_K_M.gguf",
        "model-Q8_0-00002-of-00002.gguf",
        "model-Q8_0-00001-of-00002.gguf",
        "BF16/model-BF16-00001-of-00002.gguf",
    ]
    found = choices([RemoteFile(name, 1, "") for name in listed])
    assert {label: [part.path for part in parts] for label, parts in found.items()} == {
        "Q4_K_M": ["model-Q4_K_M.gguf"],
        "Q8_0": ["model-Q8_0-00001-of-00002.gguf", "model-Q8_0-00002-of-00002.gguf"],
    }
    two = choices([RemoteFile(f"{name}-Q8_0.gguf", 1, "") for name in ("small", "large")])
    assert set(two) == {"small-Q8_0", "large-Q8_0"}


def test_the_best_that_fits_into_memory() -> None:
    found = choices(files(Q4_K_M=45, Q6_K=65, Q8_0=85, IQ4_XS=43, Q3_K_M=38, BF16=160))
    for memory, label in (
        (1000, "Q8_0"),
        (107, "Q8_0"),
        (106, "Q6_K"),
        (60, "Q4_K_M"),
        (9, "Q4_K_M"),
    ):
        assert choose("owner/name", found, "", memory) == label
    assert choose("owner/name", found, "", 0) == "Q4_K_M"
    assert choose("owner/name", choices(files(BF16=160)), "", 1000) == "BF16"
    assert choose("owner/name", choices([RemoteFile("model.gguf", 1, "")]), "", 1000) == "model"


def test_what_was_asked_for() -> None:
    found = choices(files(Q4_K_M=45, BF16=160, IQ4_XS=43))
    for asked in ("Q4_K_M", "q4_k_m", "model-Q4_K_M", "model-Q4_K_M.gguf"):
        assert choose("owner/name", found, asked, 1) == "Q4_K_M"
    with pytest.raises(ModelError, match=r"called 'Q5_K_M'; there are BF16, IQ4_XS, Q4_K_M"):
        choose("owner/name", found, "Q5_K_M", 1)


def agreed(plan: DownloadPlan) -> bool:
    return True


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a repository in GGUF."""
    folder, model = tmp_path_factory.mktemp("gguf"), tiny_model("llama")
    write_gguf(folder / "model-F32.gguf", "llama", model)
    write_gguf(
        folder / "model-F16.gguf", "llama", model, quantized={"_norm.weight": "F32", "": "F16"}
    )
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "README.md": b"x", "config.json": b'{"model_type": "llama"}'}


@pytest.fixture
def hub(stand_in_hub: Callable[..., StandInHub], contents: dict[str, bytes]) -> StandInHub:
    return stand_in_hub({NAME: contents})


def fetch(source: HuggingFaceSource, name: str) -> Path:
    return source.fetch(source.plan(name, IO), IO, confirm=agreed)


def test_a_model_is_fetched_and_found_again(hub: StandInHub, source: HuggingFaceSource) -> None:
    with pytest.raises(NetworkError, match="owner/model-GGUF:F16: is not downloaded"):
        source.resolve(f"{NAME}:F16", IO)
    plan = source.plan(f"{NAME}:f16", IO)
    assert plan.repo == f"{NAME}:F16"  # what is asked for is said
    assert [file.name for file in plan.files] == ["model-F16.gguf"]
    directory = source.fetch(plan, IO, confirm=agreed)
    for name in (NAME, f"{NAME}:F16", f"{NAME}:f16", f"{NAME}:model-F16.gguf", f"{NAME}:F16@main"):
        found = source.resolve(name, IO)
        assert found.config["dtype"] == "float16" and found.immutable
        assert (found.repo, found.revision) == (f"{NAME}:F16", hub.repos[NAME].commit)
        assert {one.path.parent for one in found.tensors.values()} == {directory}
    [stored] = source.stored(IO)
    assert (stored.repo, stored.complete) == (f"{NAME}:F16", True)


def test_two_models_of_one_repository(hub: StandInHub, source: HuggingFaceSource) -> None:
    first, second = fetch(source, f"{NAME}:F16"), fetch(source, f"{NAME}:F32")
    assert first != second
    os.utime(first / "lolama.json", (1, 1))
    assert source.resolve(NAME, IO).repo == f"{NAME}:F32"  # the one that was used last
    with pytest.raises(UsageError, match=r"is here as .*:F16, .*:F32; say which of them"):
        source.remove(NAME)
    assert source.remove(f"{NAME}:F32") > 0
    assert source.resolve(NAME, IO).repo == f"{NAME}:F16"
    assert source.remove(NAME) > 0
    assert not source.stored(IO)


def test_without_a_label_it_is_the_best_or_what_was_begun(
    hub: StandInHub, source: HuggingFaceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama_hub.download.plan.memory_available", lambda: 1 << 40)
    assert source.plan(NAME, IO).repo == f"{NAME}:F32"
    monkeypatch.setattr("lolama_hub.download.plan.memory_available", lambda: 1)
    assert source.plan(NAME, IO).repo == f"{NAME}:F16"

    def broken(file: str, done: int, size: int) -> None:
        if done == size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.fetch(source.plan(f"{NAME}:F32", IO), IO, confirm=agreed, progress=broken)
    assert source.plan(NAME, IO).repo == f"{NAME}:F32"
    with pytest.raises(NetworkError, match=r"only partly downloaded: model-F32\.gguf is missing"):
        source.resolve(NAME, IO)


def test_models_in_the_cache_of_hugging_face(
    contents: dict[str, bytes],
    source: HuggingFaceSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, commit = tmp_path / "hub", "a" * 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    root = cache / "models--owner--model-GGUF"
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)

    def add(name: str) -> None:
        (root / "blobs" / name).write_bytes(contents[name])
        (root / "snapshots" / commit / name).symlink_to(root / "blobs" / name)

    add("model-F16.gguf")
    for name in (NAME, f"{NAME}:f16", f"{NAME}:F16@{commit}"):
        found = source.resolve(name, IO)
        assert (found.repo, found.revision, found.immutable) == (f"{NAME}:F16", commit, False)
        assert found.config["dtype"] == "float16"
    with pytest.raises(NetworkError, match="is not downloaded"):
        source.resolve(f"{NAME}:F32", IO)
    add("model-F32.gguf")
    assert source.resolve(f"{NAME}:F32", IO).config["dtype"] == "float32"
    with pytest.raises(NetworkError, match="is not downloaded"):
        source.resolve(NAME, IO)  # which of them is for the user to say


def test_row_470_a_repository_of_an_architecture_that_is_not_read(
    stand_in_hub: Callable[..., StandInHub], source: HuggingFaceSource, contents: dict[str, bytes]
) -> None:
    other = contents["model-F16.gguf"].replace(b"llama", b"mamba")
    hub = stand_in_hub({NAME: {"model-F16.gguf": other + bytes(10**7)}})
    with pytest.raises(ModelError, match=r"model-F16\.gguf: is of the architecture 'mamba', which"):
        source.plan(NAME, IO)
    assert hub.bytes_sent() < 10**6
    hub.put(NAME, {"model-F16.gguf": b"<html>" + bytes(100)})
    with pytest.raises(ModelError, match=r"model-F16\.gguf: is not a GGUF file; choose another"):
        source.plan(NAME, IO)


def test_row_473_a_repository_of_types_that_are_not_read(
    stand_in_hub: Callable[..., StandInHub], source: HuggingFaceSource
) -> None:
    stand_in_hub({NAME: dict.fromkeys(("model-IQ2_XS.gguf", "model-Q2_K.gguf"), b"x")})
    with pytest.raises(
        ModelError, match="of types that lolama does not read: IQ2_XS, Q2_K; choose"
    ):
        source.plan(NAME, IO)


def test_row_477_labels_of_what_is_not_there(
    stand_in_hub: Callable[..., StandInHub], source: HuggingFaceSource
) -> None:
    hub = stand_in_hub({NAME: {"config.json": b"{}", "model.safetensors": b"x"}})
    with pytest.raises(
        ModelError, match=r"holds no model in GGUF, so none called 'Q4_K_M'; say own"
    ):
        source.plan(f"{NAME}:Q4_K_M", IO)
    hub.put(NAME, {"model-Q8_0.gguf": b"x"})
    with pytest.raises(ModelError, match=r"no model in GGUF called 'Q4_K_M'; there are Q8_0"):
        source.plan(f"{NAME}:Q4_K_M", IO)
    with pytest.raises(UsageError):
        source.plan(f"{NAME}:a--b", IO)
