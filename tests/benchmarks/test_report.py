from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmarks.plots import draw, spread
from benchmarks.report import ROOT, fill, main
from benchmarks.results import Results, Row
from benchmarks.shapes import SHAPES
from benchmarks.summary import summary
from benchmarks.tables import figures, number, quality_tables, ratio_tables, setup

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (12345.6, "12,346"),
        (45.67, "45.7"),
        (1.234, "1.23"),
        (0.456, "0.46"),
        (0.0123, "0.012"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert number(value) == expected


def quality_row(engine: str, weights: str, alone: bool, types: str, kl: float) -> dict[str, Any]:
    distance = {"mean_kl": kl, "median_kl": 1.5e-6, "p99_kl": 3e-5, "top1_agreement": 0.9885}
    return {
        "engine": engine,
        "weights": weights,
        "linears_alone": alone,
        "linear_bits": 4.5,
        "bits": 5.125,
        "types": types,
        "tokens": 1200,
        "reference_perplexity": 2.5,
        "perplexity": 2.75,
        "quantized": distance,
    }


@pytest.fixture
def quality() -> dict[str, Any]:
    rows = [
        quality_row("lolama", "int4", False, "", 2e-5),
        quality_row("lolama", "int4", True, "", 1.2e-5),
        quality_row("llama.cpp", "Q8_0", True, "Q8_0", 1e-6),
        quality_row("llama.cpp", "Q4_K_M", True, "Q4_K, Q6_K", 5e-5),
    ]
    versions = {"a": "1"}
    return {
        "date": "2026-01-02T03:04:05",
        "processor": "Some CPU",
        "versions": versions,
        "quality": {"demo": rows},
    }


def test_tables_of_quality_have_the_linears_alone_and_all_of_a_model(
    quality: dict[str, Any],
) -> None:
    lines = quality_tables(quality).splitlines()
    assert lines[0] == "2026-01-02, Some CPU, a 1."
    assert "**demo**, 1,200 tokens; perplexity in float32 2.5000." in lines[2]
    figures = "| 4.50 | 5.12 | 2.7500 | {} | 1.50e-06 | 3.00e-05 | 98.85% |"
    assert [line for line in lines if " 4.50 " in line] == [
        "| lolama int4 " + figures.format("1.20e-05"),
        "| llama.cpp Q8_0 " + figures.format("1.00e-06"),
        "| llama.cpp Q4_K_M (Q4_K, Q6_K) " + figures.format("5.00e-05"),
        "| lolama int4 " + figures.format("2.00e-05"),
    ]


@needs_matplotlib
def test_the_plot_of_quality_names_the_schemes_whose_linears_alone_differ(
    quality: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, data = tmp_path / "benchmarks.md", tmp_path / "quality.json"
    page.write_text("<!-- quality -->\n<!-- end -->\n")
    data.write_text(json.dumps(quality))
    monkeypatch.setattr(sys, "argv", ["report", str(data), "--page", str(page)])
    main()
    assert "](images/bench-quality-demo.svg)" in page.read_text()
    drawn = (tmp_path / "images" / "bench-quality-demo.svg").read_text()
    assert all(drawn.count(name) == 1 for name in ("lolama int4", "llama.cpp Q4_K_M"))


def test_figures_in_their_units(results: Results) -> None:
    head, _, lolama, *_ = figures(results).splitlines()
    cells = dict(zip(head.split(" | "), lolama.split(" | "), strict=True))
    assert cells["decode 128"] == "100" and cells["prefill 128"] == "256"
    assert cells["first token ms"] == "500" and cells["load s"] == "1.00"
    assert cells["memory MB"] == "4.00"


def test_what_was_not_measured_is_empty(results: Results) -> None:
    results.rows.append(Row("CTranslate2 int8", "ctranslate2", 1, 1, failure="decode 128: ended"))
    line = figures(results).splitlines()[-1]
    assert set(line.removeprefix("| CTranslate2 int8")) == {"|", " "}
    assert "CTranslate2 int8 failed. decode 128: ended" in setup(results)
    assert ratio_tables(results).count("CTranslate2 int8") == 2


def test_a_reference_is_one_of_itself(results: Results) -> None:
    line = next(x for x in ratio_tables(results).splitlines() if x.startswith("| transformers"))
    assert set(line.split(" | ")[1:]) <= {"1.00", "1.00 |"}


def test_setup_names_machine_versions_and_rows(results: Results) -> None:
    text = setup(results)
    for part in ("2026-01-02", "Some CPU", "torch 2.13.0", "2 to 4 (median 3) GB/s"):
        assert part in text
    assert "- llama.cpp F16: so and so" in text


def test_fill_replaces_what_is_between_the_marks_and_nothing_else() -> None:
    page = "a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- table: y -->\n<!-- end -->\nc\n"
    once = fill(page, "table: x", r"new \1 | $")
    assert once == page.replace("old\n", "\nnew \\1 | $\n\n")
    assert fill(once, "table: x", r"new \1 | $") == once
    with pytest.raises(ValueError, match="table: z"):
        fill(page, "table: z", "new")


def test_the_page_has_every_mark() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for shape in SHAPES:
        for part in ("setup", "table", "ratios", "plots"):
            page = fill(page, f"{part}: {shape}", "")
    for part in ("start", "quality"):
        page = fill(page, part, "")


def test_labels_are_spread_around_where_they_belong() -> None:
    assert spread([1.0, 5.0, 9.0], 2.0) == [1.0, 5.0, 9.0]
    assert spread([5.0, 5.0], 2.0) == [4.0, 6.0]
    assert spread([1.0, 5.0, 5.0, 5.0], 2.0) == [1.0, 3.0, 5.0, 7.0]
    crowded = spread([0.0, 0.1, 0.2, 0.3, 3.0], 1.0)
    assert all(b - a >= 1 - 1e-9 for a, b in pairwise(crowded))


@needs_matplotlib
def test_the_same_results_draw_the_same_plots(results: Results, tmp_path: Path) -> None:
    for row in results.rows:
        row.times["decode"]["2048"] = [[0.5]]
        row.times["batch"]["16"] = [[0.1]]
    first, second = draw(results, tmp_path / "1"), draw(results, tmp_path / "2")
    assert len(first) == 3
    for title, path in first.items():
        assert path.read_bytes() == second[title].read_bytes()
        assert "lolama bf16 (core + quant)" in path.read_text()


@needs_matplotlib
def test_report(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, data = tmp_path / "benchmarks.md", tmp_path / "results.json"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    results.write(data, summary(results))
    monkeypatch.setattr(sys, "argv", ["report", str(data), "--page", str(page)])
    main()
    text = page.read_text()
    assert "](images/bench-stories260k-decode.svg)" in text and "Some CPU" in text
    assert (tmp_path / "images" / "bench-stories260k-decode.svg").exists()
    monkeypatch.setattr(sys, "argv", ["report", str(data), str(data), "--page", str(page)])
    with pytest.raises(SystemExit):
        main()
    assert page.read_text() == text


def test_what_is_of_another_page_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("Nothing here.")
    families = ROOT / "benchmarks" / "results" / "families.json"
    monkeypatch.setattr(sys, "argv", ["report", str(families), "--page", str(page)])
    main()
    assert page.read_text() == "Nothing here."
