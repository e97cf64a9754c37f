"""Plans and downloads through the API, against the stand-in hub. What the command makes of faults is tested
with the command."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import (
    LolamaError,
    ModelError,
    NetworkError,
    UsageError,
)
from lolama_core.protocols.source import DownloadPlan
from lolama_hub import HuggingFaceSource
from lolama_hub.testing.faults import ALWAYS, Fault
from lolama_hub.testing.repository import CONFIG, SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

NAME = "owner/model"
WEIGHTS = os.urandom(3_000_000)
FILES = {**SMALL_FILES, "model.safetensors": WEIGHTS}
CONFIG_BYTES = len(json.dumps(CONFIG))
SMALL_BYTES = sum(map(len, SMALL_FILES.values()))
IO = FileCheckpointIO()


def agreed(plan: DownloadPlan) -> bool:
    return True


@pytest.fixture
def hub(stand_in_hub: Callable[..., StandInHub]) -> StandInHub:
    return stand_in_hub({NAME: FILES})


def names(plan: DownloadPlan) -> list[str]:
    return [file.name for file in plan.files]


def test_a_plan_is_exact_and_writes_nothing(
    hub: StandInHub, source: HuggingFaceSource, tmp_path: Path
) -> None:
    plan = source.plan(NAME, IO)
    assert (plan.repo, plan.revision, plan.ref) == (NAME, hub.repos[NAME].commit, "main")
    assert {file.name: file.size for file in plan.files} == {
        name: len(content) for name, content in FILES.items()
    }
    # config.json has been read already, and is not fetched again.
    assert hub.bytes_sent() == CONFIG_BYTES
    assert plan.bytes_to_fetch == len(WEIGHTS) + SMALL_BYTES - CONFIG_BYTES
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (
            ["model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"],
            ["model.safetensors"],
        ),
        (
            [
                *("model.safetensors.index.json", "model-00002-of-00002.safetensors"),
                *("model-00001-of-00002.safetensors", "consolidated.safetensors"),
                *("pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"),
            ],
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
    ],
)  # fmt: skip
def test_weights_come_in_one_form_only(
    hub: StandInHub, source: HuggingFaceSource, weights: list[str], chosen: list[str]
) -> None:
    others = ["README.md", "modeling_x.py", "onnx/model.onnx", "original/model.safetensors"]
    hub.put(NAME, {**dict.fromkeys([*weights, *others], b"x"), **SMALL_FILES})
    assert names(source.plan(NAME, IO)) == ["config.json", "tokenizer.json", *chosen]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["tokenizer.json", "model.safetensors"], r"holds no config\.json"),
        (["model.IQ1_S.gguf"], r"holds models in GGUF of types that lolama does not read: IQ1_S"),
        (["config.json", "README.md"], r"holds no weights: neither model\.safetensors"),
    ],
)
def test_a_repository_without_a_model(
    hub: StandInHub, source: HuggingFaceSource, files: list[str], words: str
) -> None:
    hub.put(NAME, dict.fromkeys(files, b"x"))
    with pytest.raises(ModelError, match=words):
        source.plan(NAME, IO)


def test_a_list_on_several_pages(hub: StandInHub, source: HuggingFaceSource) -> None:
    hub.page_size = 1
    assert len(source.plan(NAME, IO).files) == 3
    # A list that goes on elsewhere is not followed there: the token would go with the question.
    hub.put(NAME, FILES)
    hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(NetworkError, match=r"not a hub: .* continues its list at"):
        source.plan(NAME, IO)


def test_progress_is_told_of_every_file_first_and_then_as_they_grow(
    hub: StandInHub, source: HuggingFaceSource
) -> None:
    told: list[tuple[str, int, int]] = []
    plan = source.plan(NAME, IO)
    source.fetch(plan, IO, confirm=agreed, progress=lambda *step: told.append(step))
    assert [step[0] for step in told[:3]] == names(plan)
    growth = [done for name, done, _ in told if name == "model.safetensors"]
    assert growth == sorted(growth)
    assert growth[0] == 0
    assert growth[-1] == len(WEIGHTS)
    assert len(growth) > 3


def test_confirm_is_asked_about_what_is_missing_only(
    hub: StandInHub, source: HuggingFaceSource
) -> None:
    asked: list[int] = []

    def refuse(plan: DownloadPlan) -> bool:
        asked.append(plan.bytes_to_fetch)
        return False

    with pytest.raises(UsageError, match="was not fetched"):
        source.fetch(source.plan(NAME, IO), IO, confirm=refuse)
    hub.faults = [
        Fault("close", after=2_000_000),
        Fault("status", "resolve", name="model.safetensors", status=418, skip=1),
    ]
    with pytest.raises(NetworkError):
        source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    with pytest.raises(UsageError):
        source.fetch(source.plan(NAME, IO), IO, confirm=refuse)
    source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    source.fetch(source.plan(NAME, IO), IO, confirm=refuse)
    assert asked == [len(WEIGHTS) + SMALL_BYTES - CONFIG_BYTES, 1_000_000]


def test_what_progress_raises_ends_the_transfer(hub: StandInHub, source: HuggingFaceSource) -> None:
    class Enough(Exception):
        pass

    def stop(name: str, done: int, size: int) -> None:
        if done > 1_000_000:
            raise Enough

    with pytest.raises(Enough):
        source.fetch(source.plan(NAME, IO), IO, confirm=agreed, progress=stop)
    assert [model.complete for model in source.stored(IO)] == [False]
    assert source.fetch(source.plan(NAME, IO), IO, confirm=agreed).is_dir()
    assert [model.complete for model in source.stored(IO)] == [True]


def test_revisions_live_side_by_side(hub: StandInHub, source: HuggingFaceSource) -> None:
    first = hub.repos[NAME].commit
    source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    second = hub.put(NAME, {**FILES, "config.json": json.dumps(CONFIG, indent=1).encode()})
    source.fetch(source.plan(f"{NAME}@{second}", IO), IO, confirm=agreed)
    stored = {model.revision: model.refs for model in source.stored(IO)}
    assert stored == {first: ("main",), second: (second,)}
    assert source.remove(f"{NAME}@{second}") > len(WEIGHTS)
    assert [model.revision for model in source.stored(IO)] == [first]
    with pytest.raises(UsageError, match="is not in the store"):
        source.remove(f"{NAME}@{second}")


def test_a_stored_file_that_was_changed_is_noticed(
    hub: StandInHub, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    directory = source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    with open(directory / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    for act in (lambda: source.resolve(NAME, io), lambda: source.plan(NAME, IO)):
        with pytest.raises(
            ModelError, match=r"model\.safetensors was changed or removed.*lolama rm"
        ):
            act()
    source.remove(NAME)
    source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    (directory / "lolama.json").write_text("{}")
    with pytest.raises(ModelError, match="has no manifest"):
        source.resolve(NAME, io)


def test_a_damaged_file_of_the_hub_cache_is_not_taken_over(
    hub: StandInHub,
    source: HuggingFaceSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    blob = blobs / hub.repos[NAME].digest("model.safetensors")
    blob.write_bytes(WEIGHTS)
    plan = source.plan(NAME, IO)
    assert plan.bytes_to_fetch == SMALL_BYTES - CONFIG_BYTES
    blob.write_bytes(WEIGHTS[::-1])
    with pytest.raises(ModelError, match=f"{blob.name}: is damaged"):
        source.fetch(plan, IO, confirm=agreed)
    blob.write_bytes(WEIGHTS)
    directory = source.fetch(plan, IO, confirm=agreed)
    assert hub.bytes_sent() == SMALL_BYTES
    assert (directory / "model.safetensors").samefile(blob)  # no second copy on the disk


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"sha": "x"}',
        b'{"sha": 5}',
        b"\xff",
        b"[" * 100_000,
        b"1" * 9999,
    ],
)
@pytest.mark.parametrize("place", ["revision", "tree"])
def test_answers_that_make_no_sense(
    hub: StandInHub, source: HuggingFaceSource, body: bytes, place: str
) -> None:
    hub.faults = [Fault("body", place, times=ALWAYS, body=body)]  # type: ignore[arg-type]
    with pytest.raises(LolamaError) as caught:
        source.plan(NAME, IO)
    assert caught.value.exit_code in (3, 4)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, {}, {"path": "x"}, {"path": "x", "size": 1}, {"path": 5, "size": 1, "oid": "a" * 40},
        {"path": "x", "size": -1, "oid": "a" * 40}, {"path": "x", "size": True, "oid": "a" * 40},
        {"path": "x", "size": 1e300, "oid": "a" * 40}, {"path": "x", "size": 2**60, "oid": "a" * 40},
        {"path": "x", "size": 1, "oid": "../x"}, {"path": "x", "size": 1, "oid": "a" * 40, "lfs": {}},
        {"path": "x", "size": 1, "oid": "a" * 40, "lfs": {"oid": "A" * 64, "size": 1}},
    ],
)  # fmt: skip
def test_list_entries_that_make_no_sense(
    hub: StandInHub, source: HuggingFaceSource, entry: object
) -> None:
    hub.listing[NAME] = [entry]
    with pytest.raises(NetworkError, match="not a hub"):
        source.plan(NAME, IO)


def test_threads_of_one_process_wait_for_each_other(
    hub: StandInHub, source: HuggingFaceSource
) -> None:
    plan = source.plan(NAME, IO)
    threads = [
        threading.Thread(target=source.fetch, args=(plan, IO), kwargs={"confirm": agreed})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert hub.bytes_sent() == len(WEIGHTS) + SMALL_BYTES


def test_leftovers_of_a_killed_removal_are_swept(
    hub: StandInHub, source: HuggingFaceSource, tmp_path: Path
) -> None:
    directory = source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    leftover = directory.with_name(f"{directory.name}.removed-1")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"x" * 1000)
    made = tmp_path / "store" / "converted" / ("0" * 40 + "-abc")
    made.mkdir(parents=True)
    note = tmp_path / "store" / "finite" / made.name
    note.parent.mkdir()
    note.touch()
    assert [model.revision for model in source.stored(IO)] == [directory.name]
    assert source.collect_garbage() >= 1000
    assert not leftover.exists()
    assert not made.exists()
    assert not note.exists()
    assert directory.exists()
    assert source.collect_garbage() == 0


def test_a_fetched_model_is_like_its_folder_but_may_be_mapped(
    stand_in_hub: Callable[..., StandInHub],
    source: HuggingFaceSource,
    io: CheckpointIO,
    llama: Path,
) -> None:
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    hub = stand_in_hub({NAME: files})
    directory = source.fetch(source.plan(NAME, IO), IO, confirm=agreed)
    before = len(hub.requests)
    local, fetched = source.resolve(str(llama), io), source.resolve(NAME, io)
    assert len(hub.requests) == before
    assert fetched.config == local.config
    assert {name: place.key for name, place in fetched.tensors.items()} == {
        name: place.key for name, place in local.tensors.items()
    }
    assert {place.path.parent for place in fetched.tensors.values()} == {directory}
    assert (fetched.repo, fetched.revision) == (NAME, hub.repos[NAME].commit)
    assert (local.immutable, fetched.immutable) == (False, True)
    used = source.stored(IO)[0].last_used
    os.utime(directory / "lolama.json", (1, 1))
    source.resolve(NAME, io)
    assert source.stored(IO)[0].last_used >= used
