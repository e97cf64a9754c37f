"""Texts of a model with int8 weights are the same, and their numbers the same bits, however an engine runs.

``LOLAMA_FUZZ_CASES`` sets the number of prompts. With more than 20, every number of rows meets every chunk.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from lolama_core import Generation, Llama, LlamaConfig, slower_blocks
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.runner import runner_of
from lolama_core.testing.decoder_kernel import logits_of_row
from lolama_core.testing.engine import ALONE, FEW_WAYS, WAYS, Way, content, run_jobs
from lolama_core.testing.engine_jobs import CONTEXT, DEFAULTS, VOCABULARY, make_jobs, make_tokenizer
from lolama_core.testing.switches import SWITCHED
from lolama_quant.cpu.library import native_library
from lolama_quant.int8.quantizer import Int8Quantizer

pytestmark = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)
PROMPTS = int(os.environ.get("LOLAMA_FUZZ_CASES", "20"))
TOKENIZER = make_tokenizer()
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 2,
    "hidden_dim": 100,
    "max_seq_len": CONTEXT,
}


@pytest.fixture(scope="module", params=["kept head", "int8 head"])
def model(request: pytest.FixtureRequest) -> Llama:
    """All that it attends to changes what it says. All its blocks are run by a native kernel."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE)
    model = Llama(config).eval().requires_grad_(False)
    for place in range(config.num_layers):
        model.get_parameter(f"layers.{place}.attention.o_proj.weight").mul_(8)
    skipped = ("lm_head",) if request.param == "kept head" else ()
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8", skipped=skipped))
    model.generation_defaults = DEFAULTS
    assert not slower_blocks(model)
    return model


@pytest.fixture(scope="module")
def alone(model: Llama) -> list[list[Generation[str]]]:
    """What each job leads to when nothing else has run, or runs."""
    return [run_jobs(ALONE.engine(model, TOKENIZER), [job])[0] for job in make_jobs(PROMPTS, 0)]


@pytest.mark.parametrize("way", WAYS if PROMPTS > 20 else FEW_WAYS, ids=str)
def test_row_270_every_text_is_as_it_would_be_alone(
    model: Llama, alone: list[list[Generation[str]]], way: Way
) -> None:
    """Among rows that come in any order, are canceled, constrained, put back, or begin alike."""
    engine = way.engine(model, TOKENIZER)
    found = run_jobs(engine, make_jobs(PROMPTS, 0), make_jobs(PROMPTS // 4, 1), seed=way.rows)
    for results, expected in zip(found, alone, strict=True):
        assert [content(each) for each in results] == [content(each) for each in expected]


@pytest.mark.parametrize("name", SWITCHED)
@torch.inference_mode()
def test_int8_models_with_switches(name: str) -> None:
    """In chunks and rows, by kernels that know the switch, or by none: to the rounding of int8."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{**SHAPE, "num_layers": 3}, **SWITCHED[name]))
    model.eval().requires_grad_(False)
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8", skipped=()))
    ids = torch.randint(0, VOCABULARY, (1, 60))
    expected = model(ids)[0]
    for chunk, rows in ((1, 1), (7, 1), (60, 1), (13, 3)):
        found = logits_of_row(runner_of(model), ids, chunk, rows)
        assert (found - expected).std() < 0.03 * expected.std()
