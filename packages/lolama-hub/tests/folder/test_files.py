"""A model's folder, and what reads its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_hub.folder.files import Folder
from lolama_hub.store.place import Store


@pytest.fixture
def folder(tmp_path: Path, io: CheckpointIO) -> Folder:
    root = tmp_path / "model"
    root.mkdir()
    return Folder(root, io, Store(tmp_path / "store"))


def test_a_json_file_is_read_by_its_name_and_an_absent_one_is_empty(folder: Folder) -> None:
    (folder.root / "config.json").write_text('{"model_type": "llama"}')
    assert folder.json("config.json") == {"model_type": "llama"}
    assert folder.json("generation_config.json") == {}


@pytest.mark.parametrize("content", ["[]", '{"a": NaN}', "{", ""])
def test_a_json_file_is_read_as_one_that_nobody_trusts(folder: Folder, content: str) -> None:
    path = folder.root / "config.json"
    path.write_text(content)
    with pytest.raises(ModelError) as refused:
        folder.json("config.json")
    assert refused.value.subject == str(path)


def test_a_json_file_outside_the_folder_is_not_read(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder.root / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelError, match="is a link that leaves the model's folder"):
        folder.json("config.json")
