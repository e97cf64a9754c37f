"""A real model, from its folder to its text, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from lolama_core import (
    FileCheckpointIO,
    GenerationConfig,
    LlamaFamily,
    TextGenerator,
    Tokenizer,
    load_model,
    load_tokenizer,
)
from lolama_core.protocols import CausalLM
from lolama_core.runtime.kernels import Kernels
from lolama_hub import HuggingFaceSource


def load(folder: Path, dtype: str) -> tuple[CausalLM, Tokenizer]:
    files = HuggingFaceSource().resolve(str(folder), FileCheckpointIO())
    model = load_model(files, {"llama": LlamaFamily()}, device="cpu", dtype=dtype)
    return model, load_tokenizer(files)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kernels", [False, True])
def test_the_known_story(
    stories: Path, dtype: str, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:  # as where lolama-core is installed alone
        monkeypatch.setattr(Kernels, "installed", Kernels)
    model, tokenizer = load(stories, dtype)
    expected = (stories / "expected.txt").read_text(encoding="utf-8")
    config = GenerationConfig.greedy(max_new_tokens=200)
    result = TextGenerator(model, tokenizer).generate([1], config)
    assert result.text == expected
    pieces = list(TextGenerator(model, tokenizer).generate_stream([1], config).text())
    assert "".join(pieces) == expected
    assert len(pieces) > 150


def test_the_story_goes_on_from_its_first_words(stories: Path) -> None:
    model, tokenizer = load(stories, "float32")
    expected = (stories / "expected.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode_ids("Once upon a time")
    config = GenerationConfig.greedy(max_new_tokens=201 - len(ids))
    assert (
        "Once upon a time" + str(TextGenerator(model, tokenizer).generate(ids, config).text)
        == expected
    )
