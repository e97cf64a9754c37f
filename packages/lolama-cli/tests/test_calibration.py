"""What four bits are fitted to, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lolama
from lolama import names, quantize
from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.errors import ModelError


@pytest.fixture(autouse=True)
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 64 tokens, and a store of its own."""
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lolama.calibration._LENGTH", 64)


def test_row_466_a_text_with_fewer_tokens_than_linears_have_inputs(tmp_path: Path) -> None:
    text, told = "Once upon a time there was a small dog. " * 28, list[str]()
    tokens = len(lolama.load_tokenizer("demo").encode_ids(text))
    assert 192 <= tokens < 512
    files, options = names.resolve("demo"), quantize.Options(bits=4, text=text)
    quantize.save(files, tmp_path / "short", options, tell=told.append)
    words = f"the text has {tokens} tokens: 6 of 42 linears have more inputs, and are rounded without it"
    assert told == [words]
    quantize.keep(files, options, tell=told.append)
    assert told[1].startswith("quantizing ") and told[2:] == [words]
    options = quantize.Options(bits=4, text=text * 2)
    quantize.save(files, tmp_path / "long", options, tell=told.append)
    assert told[3:] == []


def test_row_468_a_model_without_a_tokenizer_writes_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama.calibration.TOKENS", 600)
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 40,
        "d_model": 32,
        "num_heads": 2,
        "num_layers": 2,
        "hidden_dim": 64,
    }
    dense = Llama(LlamaConfig(**shape, max_seq_len=128))
    lolama.save(dense, tmp_path / "dense")
    files = names.resolve(tmp_path / "dense")
    quantize.save(files, tmp_path / "fitted", quantize.Options(bits=4))
    quantize.save(files, tmp_path / "plain", quantize.Options(bits=4, calibration=False))
    fitted, plain = ((tmp_path / name / "model.safetensors") for name in ("fitted", "plain"))
    assert fitted.read_bytes() != plain.read_bytes()
    assert lolama.load_model(tmp_path / "fitted")(torch.arange(9)[None]).shape == (1, 9, 40)
    with pytest.raises(ModelError, match="has no tokenizer"):
        quantize.save(files, tmp_path / "a", quantize.Options(bits=4, text="Once upon a time"))
