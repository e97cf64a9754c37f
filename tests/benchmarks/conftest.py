"""`benchmarks/` is part of the repository, not of any package: find it beside this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import Results, Row, Start


@pytest.fixture
def results() -> Results:
    """Two rounds, in the second of which the machine was half as fast."""
    start = Start(importing=1.0, loading=2.0, first=0.5, memory=3_000_000, peak=4_000_000)
    quick = Start(importing=0.5, loading=1.0, first=0.25, memory=5_000_000, peak=6_000_000)

    def row(label: str, engine: str, step: float, prompt: float) -> Row:
        times = {
            "decode": {"128": [[step] * 5, [2 * step] * 5]},
            "prefill": {"128": [[prompt], [2 * prompt]]},
            "batch": {"4": [[step] * 3]},
        }
        return Row(label, engine, 2, 2, "so and so", [start, quick], times)

    rows = [
        row("lolama bf16 (core + quant)", "lolama", 0.01, 0.5),
        row("transformers bf16", "transformers", 0.02, 0.25),
        row("llama.cpp BF16", "llama.cpp", 0.008, 1.0),
        row("llama.cpp F16", "llama.cpp", 0.005, 2.0),
    ]
    versions = {"torch": "2.13.0"}
    return Results("2026-01-02", "Some CPU", 2, "stories260k", "16-bit", versions, [4e9, 2e9], rows)
