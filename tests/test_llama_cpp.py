"""GGUF files that lolama writes, in llama.cpp: it loads them, and has lolama's ids, logits and words.

``nox -s llama-cpp`` compiles llama.cpp for this (llama-cpp-python). Without it these tests are skipped.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lolama
from lolama.convert import convert
from lolama_core import GenerationConfig, TextGenerator
from lolama_core.testing import tiny

llama_cpp: Any = pytest.importorskip("llama_cpp", reason="nox -s llama-cpp installs it")
sys.path.insert(0, str(Path(__file__).parents[1] / "packages" / "lolama-hub" / "tests"))
cases: Any = import_module("gguf_cases")

F32 = 0
LENGTH = 40
NO_WINDOW = ("phi3_window", "exaone4")
"""llama.cpp does not follow the windows of these."""

GELU = 2e-3
"""How far Gemma's logits may be off: ggml looks GELU up in a table of float16."""

ROUNDED = {"f16": torch.float16, "bf16": torch.bfloat16}

PROMPTS = [
    "Once upon a time there was a dog",
    "Question: what does a cow say?\nAnswer:",
    "  Größe 12 345, it's  \n\n<|eos|> naïve 🙂",
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its own for each test."""
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def weights_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp does not arrange weights for a processor.

    Where it does so for AMX, activations beside weights of float16 are not rounded, and Q8_0 may end in
    a general protection fault.
    """
    binding = llama_cpp.llama_cpp
    usual = binding.llama_model_default_params

    def params() -> Any:
        found = usual()
        found.use_extra_bufts = False
        return found

    monkeypatch.setattr(binding, "llama_model_default_params", params)


def loaded(path: Path) -> Any:
    """The file in llama.cpp, with keys and values in float32."""
    return llama_cpp.Llama(
        str(path),
        n_ctx=256,
        n_batch=256,
        n_ubatch=256,
        n_threads=1,
        logits_all=True,
        type_k=F32,
        type_v=F32,
        verbose=False,
    )


def logits_of(engine: Any, ids: list[int]) -> Tensor:
    engine.reset()
    engine.eval(ids)
    return torch.tensor(engine.scores[: len(ids)])


def lolama_logits(name: str | Path, ids: list[int], rounded: torch.dtype | None = None) -> Tensor:
    """Logits (T, V) in float32, with what each linear reads rounded to ``rounded``."""
    with torch.inference_mode():
        model: Any = lolama.load_model(name, device="cpu", dtype="float32")
        if rounded is not None:
            for part in model.modules():
                if isinstance(part, nn.Linear):
                    part.register_forward_pre_hook(lambda _, read: (read[0].to(rounded).float(),))
        logits: Tensor = model(torch.tensor([ids]))[0]
    return logits


@pytest.mark.parametrize("case", cases.CASES)
def test_every_architecture(case: str, tmp_path: Path) -> None:
    _, model_type, changes = cases.CASES[case]
    if case == "olmoe":  # as llama.cpp expects it
        changes = {**changes, "num_key_value_heads": 4}
    vocabulary, merges = tiny.learn_bytes(["once upon a time the dog ran home"], 280)
    folder = tmp_path / "folder"
    cases.tiny_model(model_type, {**changes, "vocab_size": 300}).save_pretrained(folder)
    text = tiny.byte_level(vocabulary, merges, specials=["<s>", "</s>"], bos="<s>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    told: list[str] = []
    convert(folder, tmp_path / "a.gguf", outtype="f32", tell=told.append)
    ids = torch.randint(0, 256, (LENGTH,), generator=torch.Generator().manual_seed(1)).tolist()
    if case in NO_WINDOW:
        assert "the window, which llama.cpp does not follow" in told[0]
        return
    assert told == []
    expected, found = lolama_logits(folder, ids), logits_of(loaded(tmp_path / "a.gguf"), ids)
    largest = GELU if case.startswith("gemma") else 1e-5
    assert expected.std() > 0.05
    assert (found - expected).abs().max() <= largest * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("outtype", ["f32", "bf16", "f16", "q8_0"])
def test_the_demo_says_the_same(outtype: str, tmp_path: Path) -> None:
    path = tmp_path / "demo.gguf"
    convert("demo", path, outtype=outtype)
    engine, llm = loaded(path), lolama.load(path, device="cpu", dtype="float32")
    config = GenerationConfig.greedy(max_new_tokens=40)
    for prompt in PROMPTS:
        ids = list(llm.tokenizer.encode_ids(prompt, split_special_tokens=True))
        assert engine.tokenize(prompt.encode(), add_bos=True, special=False) == ids
        # llama.cpp rounds activations to the type of the weights, or to eight bits.
        expected = lolama_logits(path, ids, ROUNDED.get(outtype))
        found = logits_of(engine, ids)
        largest = {"f32": 1e-4, "f16": 0.01, "bf16": 0.1, "q8_0": 0.4}[outtype]
        assert (found - expected).abs().max() <= largest
        if outtype == "q8_0":
            continue  # there the two best tokens may change places
        written = list(ids)
        while len(written) < len(ids) + config.max_new_tokens:
            best = int(logits_of(engine, written)[-1].argmax())
            if best in llm.tokenizer.eos_ids:
                break
            written.append(best)
        assert tuple(written[len(ids) :]) == TextGenerator(llm.model).generate(ids, config).ids


def test_the_chat_template_goes_with_it(tmp_path: Path) -> None:
    convert("demo", tmp_path / "demo.gguf")
    engine = loaded(tmp_path / "demo.gguf")
    template = engine.metadata["tokenizer.chat_template"]
    assert template == lolama.load_tokenizer("demo").chat_template
