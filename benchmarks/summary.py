"""From raw times to figures: rates, ratios, shares of the bandwidth, and the tables that show them.

Times on a shared machine swing by half within minutes, and they swing for everybody. So a ratio is taken
inside each round, between times that lie close together, and the median of the rounds counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.results import Results, Row
from benchmarks.shapes import SHAPES, cache_bytes, weight_count

REFERENCES = {
    "transformers bf16": ["transformers bf16"],
    "the better of llama.cpp BF16 and F16": ["llama.cpp BF16", "llama.cpp F16"],
    "llama.cpp Q8_0": ["llama.cpp Q8_0"],
    "the better of llama.cpp Q4_0 and Q4_K_M": ["llama.cpp Q4_0", "llama.cpp Q4_K_M"],
    "llama.cpp Q4_K_M": ["llama.cpp Q4_K_M"],
    "lolama bf16": ["lolama bf16"],
    "lolama int8, lm_head too": ["lolama int8, lm_head too"],
}
_KINDS = ("decode", "prefill", "batch")


@dataclass(frozen=True)
class Column:
    """A figure that each row has.

    Attributes:
        title: Head of the column.
        kind: A kind of ``Row.times``, ``first token``, or a field of `Start`.
        size: Tokens, positions or rows where the kind has them.
    """

    title: str
    kind: str
    size: str = ""

    @property
    def is_rate(self) -> bool:
        """Tokens a second, of which more is better; else seconds or bytes, of which less is."""
        return self.kind in _KINDS


def percentile(times: list[float], share: float) -> float:
    """The value that ``share`` of the times are at or below."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def seconds(kind: str, times: list[float]) -> float:
    """What counts of several times: the best prompt; of steps the 20th percentile.

    A busy neighbor only ever adds. The best step would be luck, though, and the median of a program
    with two threads on two cores is his.
    """
    return min(times) if kind in ("prefill", "first token") else percentile(times, 0.2)


def columns(results: Results) -> list[Column]:
    """What was measured, in the order of the table."""
    found = []
    for kind in _KINDS:
        sizes = {size for row in results.rows for size in row.times.get(kind, {})}
        found += [Column(f"{kind} {size}", kind, size) for size in sorted(sizes, key=int)]
    if any(column.title == "prefill 128" for column in found):
        found.append(Column("first token ms", "first token", "128"))
    return [
        *found,
        Column("load s", "loading"),
        Column("start s", "start"),
        Column("memory MB", "memory"),
        Column("peak MB", "peak"),
    ]


def by_round(row: Row, column: Column) -> list[float]:
    """The figure of each round, or of each start."""
    if column.is_rate or column.kind == "first token":
        return [_figure(column, times) for times in _times(row, column)]
    if column.kind == "start":
        return [start.importing + start.loading + start.first for start in row.starts]
    return [float(getattr(start, column.kind)) for start in row.starts]


def overall(row: Row, column: Column) -> float | None:
    """The figure of the whole run; None if there is none."""
    if column.is_rate or column.kind == "first token":
        pooled = [time for times in _times(row, column) for time in times]
        return _figure(column, pooled) if pooled else None
    figures = by_round(row, column)
    if not figures:
        return None
    return median(figures) if column.kind in ("memory", "peak") else min(figures)


def _times(row: Row, column: Column) -> list[list[float]]:
    kind = "prefill" if column.kind == "first token" else column.kind
    return row.times.get(kind, {}).get(column.size, [])


def _figure(column: Column, times: list[float]) -> float:
    found = seconds(column.kind, times)
    if not column.is_rate:
        return found
    return (1 if column.kind == "decode" else int(column.size)) / found


def ratio(row: Row, references: list[Row], column: Column) -> float | None:
    """The row's figure, divided by that of the best reference in the same round; median of the rounds."""
    rounds = zip(*(by_round(reference, column) for reference in references), strict=False)
    best = [max(figures) if column.is_rate else min(figures) for figures in rounds]
    pairs = zip(by_round(row, column), best, strict=False)
    ratios = [figure / reference for figure, reference in pairs if reference > 0]
    return median(ratios) if ratios and references else None


def bytes_per_token(results: Results, row: Row, context: int) -> float:
    """What a step reads from memory: each weight, and the keys and values of each position."""
    config = SHAPES[results.shape]
    head = config.vocab_size * config.d_model
    weights = (weight_count(config) - head) * row.item + head * row.head_item
    return weights + cache_bytes(config, context)


def bandwidth_share(results: Results, row: Row) -> float | None:
    """How much of what the probe reads decoding at the first context reads; median of the rounds."""
    sizes = sorted(row.times.get("decode", {}), key=int)
    if not sizes:
        return None
    moved = bytes_per_token(results, row, int(sizes[0]))
    rates = by_round(row, Column("", "decode", sizes[0]))
    return median(
        rate * moved / probe for rate, probe in zip(rates, results.bandwidth, strict=False)
    )


def summary(results: Results) -> dict[str, Any]:
    """All figures, for the JSON file: label → figures in tokens/s, seconds and bytes, and their ratios."""
    found: dict[str, Any] = {}
    for row in results.rows:
        found[row.label] = {
            "figures": {column.title: overall(row, column) for column in columns(results)},
            "share of bandwidth": bandwidth_share(results, row),
            "ratios": {
                name: {column.title: ratio(row, rows, column) for column in columns(results)}
                for name, rows in reference_rows(results).items()
            },
        }
    return found


def reference_rows(results: Results) -> dict[str, list[Row]]:
    """The references that took part."""
    found = {
        name: [row for row in results.rows if row.label in labels]
        for name, labels in REFERENCES.items()
    }
    return {name: rows for name, rows in found.items() if rows}
