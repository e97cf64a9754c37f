"""The ids around tiles, from tokenizers that have tokens for them and from one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_folders import tiny_tokenizer_json, write_json

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_hub.folder.files import Folder
from lolama_hub.folder.picture_marks import read_picture_marks
from lolama_hub.folder.tokenizer_files import TokenizerParts, read_tokenizer
from lolama_hub.store.place import Store

AROUND = "<fake_token_around_image>"


def tokenizer(root: Path, *specials: str, **settings: object) -> TokenizerParts:
    root.mkdir(exist_ok=True)
    (root / "tokenizer.json").write_text(tiny_tokenizer_json(*specials))
    write_json(root / "tokenizer_config.json", {"bos_token": "<s>", **settings})
    return read_tokenizer(Folder(root, FileCheckpointIO(), Store(root)), 64)


def test_tokens_and_texts(tmp_path: Path) -> None:
    """A text is encoded as it is; of 33 pieces, 33 is around tiles and 34 the first tile."""
    from tokenizers import Tokenizer

    parts = tokenizer(tmp_path, AROUND, "<row_1_col_1>")
    marks = read_picture_marks(tmp_path, parts, 2)
    native = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    def encoded(text: str) -> list[int]:
        ids: list[int] = native.encode(text, add_special_tokens=False).ids
        assert len(ids) > 1 or text.isspace()
        return ids

    assert marks == {
        "around": [33],
        "whole": encoded("<global-img>"),
        "tiles": [
            [[34], encoded("<row_1_col_2>")],
            [encoded("<row_2_col_1>"), encoded("<row_2_col_2>")],
        ],
        "row_end": encoded("\n"),
        "rows_end": encoded("\n\n"),
    }


def test_tokens_by_the_names_that_the_tokenizer_gives_them(tmp_path: Path) -> None:
    names = {"fake_image_token": "<edge>", "global_image_token": "<all>"}
    parts = tokenizer(tmp_path, "<edge>", "<all>", extra_special_tokens=names)
    marks = read_picture_marks(tmp_path, parts, 1)
    assert (marks["around"], marks["whole"]) == ([33], [34])


def test_row_316_a_folder_without_what_stands_around_tiles(tmp_path: Path) -> None:
    parts = tokenizer(tmp_path / "other", "<image>")
    with pytest.raises(ModelError, match=f"tokenizer.json: has no token '{AROUND}'"):
        read_picture_marks(tmp_path, parts, 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    parts = read_tokenizer(Folder(empty, FileCheckpointIO(), Store(empty)), 64)
    with pytest.raises(ModelError, match="empty: has no tokenizer, and this model writes texts"):
        read_picture_marks(empty, parts, 1)


def test_row_316_a_tokenizer_that_cannot_be_used(tmp_path: Path) -> None:
    parts = tokenizer(tmp_path, AROUND)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer.json: cannot be used: "):
        read_picture_marks(tmp_path, parts, 1)
