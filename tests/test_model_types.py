"""Each type of text or vision model in transformers is read, or refused by name in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.model_types_page import PAGE, SUPPORTED, ModelType, model_types, page, types_with_parity
from tests.test_parity import write_tokenizer

from lolama_core import FileCheckpointIO
from lolama_core.protocols.errors import EXIT_MODEL, ModelError
from lolama_hub import HuggingFaceSource
from lolama_hub.folder.relatives import RELATIVES, nearest_types

READ = re.compile(
    r": holds no (weights|model)|: layer_types is|: image_token_\w+ is|: mm_tokens_per_image is"
)
"""What is said of a type that is read: its default may have Mamba, too high an image token, or patches that
make no squares."""


@pytest.fixture(scope="module")
def types() -> list[ModelType]:
    return list(model_types())


def test_the_page_is_made_by_its_script(types: list[ModelType]) -> None:
    assert PAGE.read_text("utf-8") == page(types)


def test_row_356_a_folder_of_each_type_is_read_or_refused_in_one_line(
    types: list[ModelType], tmp_path: Path
) -> None:
    """Folders as transformers writes them, without weights: what is refused needs none."""
    write_tokenizer(tmp_path)
    assert len(types) > 250
    for one in types:
        (tmp_path / "config.json").write_text(one.config)
        with pytest.raises(ModelError) as refused:
            HuggingFaceSource().resolve(str(tmp_path), FileCheckpointIO())
        message = str(refused.value)
        assert message.isprintable() and len(message) < 400, message
        assert refused.value.exit_code == EXIT_MODEL
        if one.verdict.startswith("read"):
            assert READ.search(message), (one.name, message)
        else:
            # As transformers writes it: gpt-sw3 is of the type gpt2.
            written = json.loads(one.config)["model_type"]
            near = ", ".join(nearest_types(written, SUPPORTED))
            expected = (
                f"model_type '{written}' is not supported; the nearest that are: {near}; docs/"
            )
            assert expected in message, (one.name, message)


def test_each_type_that_is_read_has_a_parity_case(types: list[ModelType]) -> None:
    read = {one.name for one in types if one.verdict == "read"}
    assert read == types_with_parity() & {one.name for one in types}
    assert len(read) > 30


def test_relatives_are_types_that_are_read(types: list[ModelType]) -> None:
    assert set(RELATIVES) <= {one.name for one in types} - {*SUPPORTED}
    assert set(RELATIVES.values()) <= {*SUPPORTED}
