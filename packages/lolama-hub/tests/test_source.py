from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lolama_core.protocols import CheckpointIO, ModelSource
from lolama_core.protocols.errors import ModelError, NetworkError, ResourceError, UsageError
from lolama_core.testing.source import ModelSourceSuite
from lolama_hub import HuggingFaceSource
from lolama_hub.source import HubModel, parse_name
from lolama_hub.store.place import Store
from lolama_hub.store.snapshots import Snapshots

CONFORMS: ModelSource = HuggingFaceSource()  # for mypy


class TestConformance(ModelSourceSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ModelSource:
        return HuggingFaceSource(store=tmp_path / "store")

    @pytest.fixture
    def resolvable(self, llama: Path) -> str:
        return str(llama)

    @pytest.fixture
    def absent(self) -> str:
        return "tinyllama"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_names_mean(here: Path) -> None:
    for folder in ("tinyllama", "my-model", "owner/name"):
        (here / folder).mkdir(parents=True)
    assert parse_name("tinyllama") == HubModel("TinyLlama/TinyLlama-1.1B-Chat-v1.0")
    assert parse_name("./tinyllama") == Path("tinyllama")
    assert parse_name(str(here / "tinyllama")) == here / "tinyllama"
    assert parse_name("my-model") == Path("my-model")
    assert parse_name("owner/name") == Path("owner/name")
    assert parse_name("owner/other") == HubModel("owner/other")
    assert parse_name("owner/other@main") == HubModel("owner/other", "main")
    assert parse_name("a.b/C_d-1.5@refs/pr/3") == HubModel("a.b/C_d-1.5", "refs/pr/3")
    assert parse_name(".") == Path(".")


@pytest.mark.parametrize("name", ["./demo", "a/../../demo", "~/demo/"])
def test_row_419_a_path_is_named_as_it_was_typed(here: Path, name: str) -> None:
    reason = re.escape(f"model '{name}': ")
    with pytest.raises(UsageError, match=reason):
        parse_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "../etc", "a b/c", "", " ", "a/b/c", "owner/", "/name/that/is/not", "owner/..", "-a/b", "a/b.",
        "a--b/c", "a/b@", "a/b@-x", "a/b@x..y", "owner/na\nme", "~nobody-at-all/x", "tiny llama", "\0",
        "C:\\models\\x", "x" * 300 + "/y", "./" + "x" * 300,
    ],
)  # fmt: skip
def test_row27_a_bad_id_is_a_usage_error(
    name: str, here: Path, source: HuggingFaceSource, io: CheckpointIO
) -> None:
    for act in (
        lambda: source.resolve(name, io),
        lambda: source.plan(name, io),
        lambda: source.remove(name),
    ):
        with pytest.raises(UsageError) as caught:
            act()
        assert caught.value.exit_code == 2
        assert caught.value.remedy
        assert str(caught.value).isprintable()


def test_a_mistyped_alias_is_answered_with_the_right_one(
    source: HuggingFaceSource, io: CheckpointIO, here: Path
) -> None:
    with pytest.raises(UsageError, match=r"did you mean tinyllama\?"):
        source.resolve("tinyllma", io)


def test_a_file_is_not_a_folder(source: HuggingFaceSource, io: CheckpointIO, llama: Path) -> None:
    with pytest.raises(UsageError, match="is a file, not a folder"):
        source.resolve(str(llama / "model.safetensors"), io)


@pytest.mark.parametrize("name", ["pipe", "pipe.gguf", "pipe.onnx"])
def test_row_410_a_pipe_is_no_model(
    name: str, source: HuggingFaceSource, io: CheckpointIO, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is neither a folder nor a regular file; give the folder"):
        source.resolve(str(tmp_path / name), io)


@pytest.mark.parametrize("name", ["tinyllama", "llava-med", "owner/name", "owner/name@v1.0"])
def test_row25_offline_says_what_is_not_here(
    name: str, source: HuggingFaceSource, io: CheckpointIO, here: Path
) -> None:
    for act in (lambda: source.resolve(name, io), lambda: source.plan(name, io)):
        with pytest.raises(
            NetworkError, match=r"is not downloaded; run `lolama pull .*` without HF_"
        ):
            act()
    with pytest.raises(UsageError, match="is not in the store"):
        source.remove(name)


def test_a_folder_of_ones_own_is_neither_planned_nor_removed(
    source: HuggingFaceSource, io: CheckpointIO, llama: Path
) -> None:
    with pytest.raises(UsageError, match="nothing to download"):
        source.plan(str(llama), io)
    with pytest.raises(UsageError, match="remove it yourself"):
        source.remove(str(llama))
    assert (llama / "model.safetensors").exists()


def test_an_empty_folder_says_what_it_lacks(
    source: HuggingFaceSource, io: CheckpointIO, llama: Path
) -> None:
    (llama / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights: neither model\.safetensors"):
        source.resolve(str(llama), io)
    (llama / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: does not exist"):
        source.resolve(str(llama), io)


def test_entry_point() -> None:
    found = [entry for entry in entry_points(group="lolama.sources") if entry.name == "huggingface"]
    if not found:
        pytest.skip("lolama-hub is not installed as a distribution")
    assert found[0].load() is HuggingFaceSource


def test_importing_and_listing_load_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, lolama_hub; lolama_hub.HuggingFaceSource().list(); "
        "heavy = {'torch', 'transformers', 'tokenizers', 'huggingface_hub', 'sentencepiece'}; "
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_row51_code_of_the_folder_is_never_imported(llama: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    for module in ("configuration_x", "modeling_x", "tokenization_x"):
        (llama / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')\nclass X: pass\n")
    from tiny_folders import edit_json

    edit_json(
        llama / "config.json",
        auto_map={"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"},
        trust_remote_code=True,
    )
    edit_json(
        llama / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_x.X", "tokenization_x.X"]},
        tokenizer_class="X",
    )
    program = (
        "import sys\n"
        "from lolama_core.files.checkpoint_reader import FileCheckpoint\n"
        "from lolama_core.files.checkpoint_io import FileCheckpointIO\n"
        "from lolama_hub import HuggingFaceSource\n"
        "files = HuggingFaceSource().resolve(sys.argv[1], FileCheckpointIO())\n"
        "print(len(list(FileCheckpoint(files).tensors())), 'transformers' in sys.modules)\n"
        "print(sys.stdin.read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(llama)],
        input="y\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=llama,
    )
    # Nothing asked, so the "y" is still there to be read.
    assert done.stdout == "21 False\ny\n\n"
    assert done.stderr == ""
    assert not marker.exists()


def test_models_of_the_hub_cache_are_listed_if_they_can_be_used(
    source: HuggingFaceSource,
    io: CheckpointIO,
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

    def add(name: str, commit: str = "a" * 40, **changed: bytes | None) -> Path:
        folder = cache / name / "snapshots" / commit
        (cache / name / "refs").mkdir(parents=True)
        (cache / name / "refs" / "main").write_text(commit)
        shutil.copytree(llama, folder)
        for stem, content in changed.items():
            (folder / f"{stem}.json").unlink(missing_ok=True)
            if content is not None:
                (folder / f"{stem}.json").write_bytes(content)
        return folder

    folder = add("models--owner--model")
    add("models--owner--encoder", config=b'{"model_type": "bert"}')
    add("models--owner--page", config=b"<html>")
    add("models--owner--part", tokenizer=None)
    shards = add("models--owner--nested")
    (shards / "model.safetensors").unlink()
    (shards / "model.safetensors.index.json").write_bytes(b"[" * 100_000)
    add("models--owner--strange", commit="main")
    add("models--gpt2")
    add("datasets--owner--data")
    (cache / "version.txt").write_text("1")
    found = source.stored(io)
    assert [(m.repo, m.revision, m.refs) for m in found] == [("owner/model", "a" * 40, ("main",))]
    assert (found[0].shared, found[0].complete) == (True, True)
    assert found[0].size == sum(path.stat().st_size for path in folder.iterdir())
    with pytest.raises(
        UsageError, match=r"Hugging Face's own cache.*hf cache rm model/owner/model"
    ):
        source.remove("owner/model")
    with pytest.raises(NetworkError, match="not downloaded"):
        source.resolve("owner/nested", io)


@pytest.mark.parametrize("name", ["a" * 5000, "b" * 300, "x/" * 2046, "a\0b"])
def test_row_120_a_store_that_no_directory_can_be(
    name: str, io: CheckpointIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResourceError, match="set LOLAMA_HOME to a directory"):
        HuggingFaceSource(store=Path(name)).stored(io)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("method", ["iterdir", "mkdir"])
def test_row_121_a_store_that_cannot_be_opened_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, method: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, method, refuse)
        with pytest.raises(ResourceError, match=r"open as it may|enough memory"):
            store.directory("models") if method == "mkdir" else Snapshots(store).models()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EROFS])
def test_row_121_a_lock_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(ResourceError), Snapshots(Store(tmp_path)).lock("owner/name"):
            pass
