from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.results import Results, Row, read_results
from benchmarks.shapes import SHAPES, cache_bytes, weight_count
from benchmarks.summary import (
    Column,
    bandwidth_share,
    columns,
    overall,
    percentile,
    ratio,
    reference_rows,
    seconds,
    summary,
)

DECODE = Column("decode 128", "decode", "128")
PREFILL = Column("prefill 128", "prefill", "128")


@pytest.mark.parametrize(
    ("times", "share", "expected"),
    [
        ([5.0, 1.0, 4.0, 2.0, 3.0], 0.2, 2.0),
        ([5.0, 1.0, 4.0, 2.0, 3.0], 0.0, 1.0),
        ([7.0], 0.2, 7.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_percentile(times: list[float], share: float, expected: float) -> None:
    assert percentile(times, share) == expected


def test_the_best_prompt_counts_but_not_the_luckiest_step() -> None:
    times = [0.001, *([0.01] * 9)]
    assert seconds("prefill", times) == 0.001
    assert seconds("decode", times) == seconds("batch", times) == 0.01


def test_columns_are_what_was_measured(results: Results) -> None:
    titles = [column.title for column in columns(results)]
    measured = ["decode 128", "prefill 128", "batch 4", "first token ms"]
    assert titles == [*measured, "load s", "start s", "memory MB", "peak MB"]


def test_sizes_are_ordered_as_numbers(results: Results) -> None:
    results.rows[0].times["decode"]["64"] = [[1.0]]
    results.rows[0].times["decode"]["1024"] = [[1.0]]
    titles = [column.title for column in columns(results)]
    assert titles[:3] == ["decode 64", "decode 128", "decode 1024"]


def test_figures_of_the_whole_run(results: Results) -> None:
    row = results.rows[0]
    assert overall(row, DECODE) == pytest.approx(100)  # tokens a second, in the better round
    assert overall(row, PREFILL) == pytest.approx(256)
    assert overall(row, Column("", "batch", "4")) == pytest.approx(400)  # those of all rows
    assert overall(row, Column("", "first token", "128")) == 0.5
    assert overall(row, Column("", "loading")) == 1.0
    assert overall(row, Column("", "start")) == 1.75
    assert overall(row, Column("", "memory")) == 4_000_000
    assert overall(row, Column("", "decode", "2048")) is None
    assert overall(Row("never started", "eager", 2, 2), Column("", "memory")) is None


def test_a_ratio_is_taken_inside_a_round(results: Results) -> None:
    row, transformers = results.rows[0], results.rows[1]
    # Had the row been measured in the first round only and the reference in the second only, a ratio of
    # whole runs would be 4. Here both rounds say 2, though one was half as fast.
    assert ratio(row, [transformers], DECODE) == pytest.approx(2)
    # One round that a neighbor spoilt for one of the two does not count.
    for peer, times in ((row, [[0.01], [0.02], [0.09]]), (transformers, [[0.02], [0.04], [0.02]])):
        peer.times["decode"]["128"] = times
    assert ratio(row, [transformers], DECODE) == pytest.approx(2)


def test_the_better_reference_counts(results: Results) -> None:
    references = reference_rows(results)["the better of llama.cpp BF16 and F16"]
    assert [row.label for row in references] == ["llama.cpp BF16", "llama.cpp F16"]
    row = results.rows[0]
    assert ratio(row, references, DECODE) == pytest.approx(0.5)  # F16, which steps faster
    assert ratio(row, references, PREFILL) == pytest.approx(2)  # BF16, whose prompt is faster
    assert ratio(row, references, Column("", "first token", "128")) == pytest.approx(0.5)


def test_no_ratio_without_figures(results: Results) -> None:
    assert ratio(results.rows[0], results.rows[1:2], Column("", "decode", "2048")) is None
    assert ratio(Row("failed", "eager", 2, 2), results.rows[1:2], DECODE) is None
    results.rows = results.rows[:1]
    assert reference_rows(results) == {}


def test_the_share_of_bandwidth_uses_the_probe_of_the_same_round(results: Results) -> None:
    config = SHAPES["stories260k"]
    moved = 2 * weight_count(config) + cache_bytes(config, 128)
    # Both rounds: half the speed, half the bandwidth.
    assert bandwidth_share(results, results.rows[0]) == pytest.approx(100 * moved / 4e9)
    assert bandwidth_share(results, Row("failed", "eager", 2, 2)) is None


def test_weights_counted_by_hand() -> None:
    # 5 layers of (q, o: 64 · 64; k, v: 64 · 32; three of 64 · 172), and 512 · 64 for the logits.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 172
    assert weight_count(SHAPES["stories260k"]) == 5 * layer + 512 * 64
    assert cache_bytes(SHAPES["stories260k"], 10) == 2 * 5 * 4 * 8 * 10 * 2


def test_results_come_back_from_their_file(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    results.write(path, summary(results))
    assert read_results(path) == results
    found = json.loads(path.read_text())["summary"]["lolama bf16 (core + quant)"]
    assert found["figures"]["decode 128"] == pytest.approx(100)
    assert found["ratios"]["transformers bf16"]["decode 128"] == pytest.approx(2)
