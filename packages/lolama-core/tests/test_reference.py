"""The page that everything is compared with: the same numbers as the model's own, and the same text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core import TextGenerator, load, reference
from lolama_core.testing.decoder_kernel import SHAPES
from lolama_core.testing.random_model import random_llama

LENGTH = 40
STRETCHED: dict[str, dict[str, Any]] = {
    kind: {"rope_scaling": {"type": kind, "factor": 4.0, "original_max_seq_len": 16}}
    for kind in ("linear", "dynamic", "llama3", "yarn")
}
CASES = {**SHAPES, **STRETCHED, "tied": {"tie_word_embeddings": True}}


@pytest.mark.parametrize("name", CASES)
def test_the_models_logits(name: str) -> None:
    model = random_llama(**CASES[name])
    ids = torch.randint(0, model.vocab_size, (LENGTH,))
    expected = reference.logits(model.state_dict(), model.config, ids.tolist())
    assert (model(ids[None])[0] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_position_does_not_see_what_follows() -> None:
    model = random_llama()
    ids = torch.randint(0, model.vocab_size, (LENGTH,)).tolist()
    whole = reference.logits(model.state_dict(), model.config, ids)
    part = reference.logits(model.state_dict(), model.config, ids[:17])
    torch.testing.assert_close(whole[:17], part, atol=1e-4, rtol=1e-5)
    changed = reference.logits(model.state_dict(), model.config, [*ids[:-1], (ids[-1] + 1) % 50])
    assert not torch.allclose(whole[-1], changed[-1])


def test_weights_of_sixteen_bits_are_computed_with_in_float32() -> None:
    model = random_llama().to(torch.bfloat16)
    found = reference.logits(model.state_dict(), model.config, [1, 2, 3])
    expected = reference.logits(model.float().state_dict(), model.config, [1, 2, 3])
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_the_built_in_model_writes_the_same_text() -> None:
    model, tokenizer = load("demo", device="cpu", dtype="float32")
    ids = tokenizer.encode_ids("Once upon a time")
    found = list(reference.greedy(model.state_dict(), model.config, ids, tokenizer.eos_ids))
    generator = TextGenerator(model, tokenizer)
    expected = generator.generate(ids, temperature=0, repetition_penalty=1, max_new_tokens=500)
    assert (tuple(found), expected.finish_reason) == (expected.ids, "eos")


def test_greedy_ends_with_the_context() -> None:
    model = random_llama(max_seq_len=20)
    ids = list(reference.greedy(model.state_dict(), model.config, [1, 2, 3]))
    assert len(ids) == 17


def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "lolama_core.reference", "The dog"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The dog ") and done.stdout.endswith(".\n")


def test_it_stays_one_page() -> None:
    assert len(Path(reference.__file__).read_text().splitlines()) <= 150
