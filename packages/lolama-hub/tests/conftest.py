"""Fixtures; what they are made of is in `tiny_folders`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

# Before huggingface_hub is imported: no test reaches the network, or looks into a cache that is not its own.
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME="/nonexistent")

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.types import ModelFiles
from lolama_hub import HuggingFaceSource
from lolama_hub.testing.stand_in_hub import StandInHub

# pytest imports tests by path (importlib mode), so a module that they share has to be put in reach.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def quiet_transformers() -> Iterator[None]:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def stand_in_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StandInHub]]:
    """Starts a stand-in hub that huggingface_hub in this process takes for the Hub; tries follow at once."""
    with ExitStack() as stack:

        def start(repos: Mapping[str, Mapping[str, bytes | Path]]) -> StandInHub:
            hub = stack.enter_context(StandInHub(repos))
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", hub.timeout)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", hub.timeout)
            monkeypatch.setattr("lolama_hub.download.retries._FIRST_WAIT", 0.001)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            return hub

        yield start


@pytest.fixture
def source(tmp_path: Path) -> HuggingFaceSource:
    return HuggingFaceSource(store=tmp_path / "store")


@pytest.fixture
def io() -> CheckpointIO:
    return FileCheckpointIO()


@pytest.fixture
def resolve(source: HuggingFaceSource, io: CheckpointIO) -> Callable[[Path], ModelFiles]:
    return lambda folder: source.resolve(str(folder), io)


@pytest.fixture(scope="session")
def llama_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small llama folder, by name."""
    # The process that only gives tests to others imports this file, too, and they wait for it.
    from tiny_folders import save, tiny_model

    folder = save(tiny_model("llama"), tmp_path_factory.mktemp("llama"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def llama(tmp_path: Path, llama_files: dict[str, bytes]) -> Path:
    """A fresh copy of a small llama folder, to be damaged at will."""
    folder = tmp_path / "llama"
    folder.mkdir()
    for name, content in llama_files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def stories() -> Path:
    """A small trained model as a Hugging Face folder, if the checkout has it beside it."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data" / "stories260K"
        if folder.is_dir():
            return folder
    pytest.skip("the stories260K folder is not here")
