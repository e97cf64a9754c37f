"""int8 across packages: the text that quality is measured on, and a real model from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from training.text import held_out

from lolama import names, quantize, wiring
from lolama_quant import default_text, measure_quality


def test_the_text_that_ships_is_what_the_generator_writes() -> None:
    assert held_out.text() == held_out.OUTPUT.read_text(encoding="utf-8")


@pytest.mark.parametrize("product", ["native", "integers", "widened"])
def test_a_real_model_passes_the_gate(
    stories: Path, product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path))
    cpu = "lolama_quant.int8.backends.cpu"
    if product != "native":
        monkeypatch.setattr(f"{cpu}.int8_rows", lambda: 0)
    monkeypatch.setattr(f"{cpu}.multiplies_integers", lambda: product == "integers")
    # The same integers, for sums below 2^24, in a time that suits a processor without such products too.
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.float() @ b.float()).int())
    files = names.resolve(stories)
    dense = wiring.load_files(files, device="cpu")
    int8 = wiring.load_files(quantize.keep(files), device="cpu")
    assert sum(p.nbytes for p in cast(torch.nn.Module, int8).parameters()) < 0.5 * sum(
        p.nbytes for p in dense.parameters()
    )
    report = measure_quality(dense, int8, wiring.tokenizer_of(files), default_text()[:60])
    assert report.tokens > 10_000
    assert report.quantized.top1_agreement >= 0.98
    assert report.quantized.median_kl <= 1e-3
