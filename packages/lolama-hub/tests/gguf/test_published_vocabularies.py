"""The vocabularies that llama.cpp has beside its tests, with the ids that it expects of some texts.

``nox -s gguf-vocabularies`` fetches them and names their folder in ``LOLAMA_VOCABULARIES``.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import CanonicalConfig, ModelFiles
from lolama_hub.gguf.export_tokenizer import tokenizer_metadata
from lolama_hub.gguf.tokenizer import read_gguf_tokenizer
from lolama_hub.store.place import Store

FOLDER = os.environ.get("LOLAMA_VOCABULARIES")
FILES = sorted(Path(FOLDER).glob("*.gguf")) if FOLDER else []
KEY = "tokenizer.ggml."
BETWEEN = "\n__ggml_vocab_test__\n"

REFUSED = {
    "aquila": "does not say how its tokenizer cuts texts into words",
    "bert-bge": "tokenizer.ggml.model 'bert'",
    "gpt-neox": "does not say how its tokenizer cuts texts into words",
    "nomic-bert-moe": "tokenizer.ggml.model 't5'",
}
"""Those that are refused, and why. The files without ``tokenizer.ggml.pre`` have no expected ids either."""

pytestmark = pytest.mark.skipif(not FILES, reason="nox -s gguf-vocabularies fetches the files")


def name_of(file: Path) -> str:
    return file.stem.removeprefix("ggml-vocab-")


def cases(file: Path) -> list[tuple[str, list[int]]]:
    """Texts and their ids, of a file that has some."""
    texts, ids = (file.with_name(f"{file.name}.{end}") for end in ("inp", "out"))
    if not texts.exists():
        return []
    given = texts.read_bytes().decode().removesuffix(BETWEEN).split(BETWEEN)
    rows = [[*map(int, row.split())] for row in ids.read_text(encoding="utf-8").splitlines()]
    return list(zip(given, rows, strict=True))


def expected_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_texts_have_the_ids_that_llama_cpp_expects(
    file: Path, tmp_path: Path, io: CheckpointIO, record_testsuite_property: Any
) -> None:
    def read() -> Path:
        found = read_gguf_tokenizer(
            file, io.gguf(file).metadata, 2**20, store=Store(tmp_path), label=file.stem
        )
        assert found.files.tokenizer_json is not None
        return found.files.tokenizer_json

    if name_of(file) in REFUSED:
        with pytest.raises(ModelError, match=re.escape(REFUSED[name_of(file)])):
            read()
        return
    values = json.loads(read().read_text(encoding="utf-8"))
    ours = Tokenizer.from_str(json.dumps(values))
    composes, values["normalizer"] = values["normalizer"] == {"type": "NFC"}, None
    # llama.cpp does not compose texts where the model's own tokenizer does.
    uncomposed = Tokenizer.from_str(json.dumps(values)) if composes else ours
    for tokenizer in (ours, uncomposed):
        tokenizer.encode_special_tokens = True
    for text, ids in cases(file):
        as_it_is = not composes or unicodedata.is_normalized("NFC", text)
        assert expected_ids(ours if as_it_is else uncomposed, text) == ids, text
    record_testsuite_property(name_of(file), len(cases(file)))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_what_is_read_is_written(file: Path, tmp_path: Path, io: CheckpointIO) -> None:
    """Tokens, kinds, merges and special ids, from metadata over tokenizer.json to metadata."""
    if name_of(file) in {*REFUSED, "gemma-4"}:
        return
    metadata = io.gguf(file).metadata
    tokens = metadata[f"{KEY}tokens"]
    assert isinstance(tokens, list)
    size = len(tokens)
    found = read_gguf_tokenizer(file, metadata, size, store=Store(tmp_path), label=file.stem)
    config = {"generation": {"eos_ids": found.eos_ids}, "tokenizer": found.block}
    files = ModelFiles(
        name="tiny", config=cast(CanonicalConfig, config), tensors={}, tokenizer=found.files
    )
    written, left_out = tokenizer_metadata(files, size, io)
    assert left_out == []
    written["general.architecture"] = metadata["general.architecture"]
    again = read_gguf_tokenizer(file, written, size, store=Store(tmp_path / "b"), label="b")
    assert (again.block, again.eos_ids, again.size) == (found.block, found.eos_ids, found.size)
    texts = []
    for path in (found.files.tokenizer_json, again.files.tokenizer_json):
        assert path is not None
        texts.append(json.loads(path.read_text(encoding="utf-8")))
    assert texts[0] == texts[1]


def test_all_files_are_here() -> None:
    assert len(FILES) == 19 and REFUSED.keys() <= {*map(name_of, FILES)}
    assert sum(len(cases(file)) for file in FILES) == 46 * 14 + 50
