"""What users are told of settings that are not followed: one line, however odd the names are."""

from __future__ import annotations

import pytest

from lolama_core.protocols.notices import unsupported
from lolama_core.protocols.types import CanonicalConfig, ModelFiles, TokenizerFiles


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["num_beams", "it's"], "num_beams, it's"),
        (["a\nb", "\x1b[31m", "x" * 5000], f"a\\nb, \\x1b[31m, {'x' * 37}..."),
        (["n"] * 1041, ", ".join("n" * 40) + " and 1,001 more"),
    ],
)
def test_row_267_names_in_one_line(asked: list[str], said: str) -> None:
    config: CanonicalConfig = {
        "format": "lolama",
        "format_version": 1,
        "family": "llama",
        "dtype": "float32",
        "model": {},
        "generation": {"unsupported": asked},
        "tokenizer": {},
    }
    files = ModelFiles(name="m", config=config, tensors={}, tokenizer=TokenizerFiles())
    assert unsupported(files) == f"m asks for settings that lolama does not follow: {said}"
    config["generation"] = {}
    assert unsupported(files) == ""
