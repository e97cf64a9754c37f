"""The tables, in Markdown."""

from __future__ import annotations

import re
from statistics import median
from typing import Any

from benchmarks.results import Results
from benchmarks.summary import bandwidth_share, columns, overall, ratio, reference_rows

# Ends of column titles → what the figure is divided by to be in that unit.
UNITS = {"MB": 1e6, "ms": 1e-3}


def number(value: float | None) -> str:
    """Three digits, which is more than the machine's swings leave certain."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures(results: Results) -> str:
    """Everything measured."""
    found = columns(results)
    lines = []
    for row in results.rows:
        values = [(overall(row, column), UNITS.get(column.title[-2:], 1)) for column in found]
        cells = [number(None if value is None else value / unit) for value, unit in values]
        share = bandwidth_share(results, row)
        lines.append([row.label, *cells, "" if share is None else f"{share:.0%}"])
    return markdown(["", *(column.title for column in found), "of bandwidth"], lines)


def ratios(results: Results, reference: str) -> str:
    """Everything, divided by what the reference has."""
    found, rows = columns(results), reference_rows(results)[reference]
    lines = [
        [row.label, *(number(ratio(row, rows, column)) for column in found)] for row in results.rows
    ]
    titles = [re.sub(" (s|ms|MB)$", "", column.title) for column in found]
    return markdown(["", *titles], lines)


def ratio_tables(results: Results) -> str:
    """One for each reference, with its heading."""
    return "\n\n".join(
        f"Divided by {name}:\n\n{ratios(results, name)}" for name in reference_rows(results)
    )


def setup(results: Results) -> str:
    """Machine, versions and date, and what each engine says of itself."""
    probes = sorted(probe / 1e9 for probe in results.bandwidth)
    swing = f"{probes[0]:.0f} to {probes[-1]:.0f} (median {median(probes):.0f})" if probes else "?"
    versions = ", ".join(f"{name} {found}" for name, found in results.versions.items())
    notes = [f"- {row.label}: {row.detail}" for row in results.rows if row.detail]
    notes += [f"- {row.label} failed. {row.failure}" for row in results.rows if row.failure]
    lines = [
        f"Measured {results.date} on {results.processor}, threads: {results.threads}; "
        f"memory is read at {swing} GB/s.",
        f"Versions: {versions}.",
        "",
        *notes,
    ]
    return "\n".join(lines)


def start_table(result: dict[str, Any]) -> str:
    """Markdown: each program's start, and its ratio to the first one's.

    Args:
        result: What `benchmarks.start` writes as JSON.
    """
    starts = result["starts"]
    named = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    head = ["", "torch", "warm s", "warm ratio", "cold s", "cold ratio", "read MB", "peak MB"]
    lines = []
    for one in starts:
        cells = [f"`{one['label']}`", "imported" if one["torch"] else ""]
        for kind in ("warm", "cold"):
            times, reference = one[kind], starts[0][kind]
            cells += [number(median(times)), ratio_cell(times, reference)] if times else ["", ""]
        read = median(one["read"]) / UNITS["MB"] if one["read"] else None
        lines.append([*cells, number(read), number(one["peak"] / UNITS["MB"])])
    return "\n".join(
        [
            f"{len(starts[0]['warm'])} rounds, {result['date']}, on {result['processor']}.",
            f"Versions: {named}.",
            "",
            markdown(head, lines),
        ]
    )


def ratio_cell(times: list[float], reference: list[float]) -> str:
    """The ratio of the medians, and the least and the greatest ratio of one round."""
    rounds = [mine / other for mine, other in zip(times, reference, strict=True)]
    middle = median(times) / median(reference)
    return f"{middle:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"


def quality_tables(result: dict[str, Any]) -> str:
    """Markdown: for each model a table of the linears alone, and one of what each program does by itself.

    Args:
        result: What `benchmarks.quality` writes as JSON.
    """
    named = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [f"{result['date'][:10]}, {result['processor']}, {named}."]
    for model, rows in result["quality"].items():
        first = rows[0]
        parts.append(
            f"**{model}**, {first['tokens']:,} tokens; perplexity in float32 "
            f"{first['reference_perplexity']:.4f}. Linears inside blocks alone, the rest in bfloat16:"
        )
        parts.append(_quality_table([row for row in rows if row["linears_alone"]]))
        parts.append("Embedding and head as each program quantizes them:")
        parts.append(_quality_table([row for row in rows if not row["linears_alone"]]))
    return "\n\n".join(parts)


def _quality_table(rows: list[dict[str, Any]]) -> str:
    head = ["weights", "bits of linears", "of all", "perplexity", "mean KL", "median KL", "p99 KL"]
    lines = []
    for row in rows:
        ours, types = row["quantized"], row["types"]
        label = f"{row['engine']} {row['weights']}"
        lines.append(
            [
                label if types in ("", row["weights"]) else f"{label} ({types})",
                f"{row['linear_bits']:.2f}",
                f"{row['bits']:.2f}",
                f"{row['perplexity']:.4f}",
                *(f"{ours[name]:.2e}" for name in ("mean_kl", "median_kl", "p99_kl")),
                f"{ours['top1_agreement']:.2%}",
            ]
        )
    return markdown([*head, "same best token"], lines)
