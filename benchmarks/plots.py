"""The plots of a run, as SVG: small files, labels at the lines themselves, colors for every eye."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import Results, Row
from benchmarks.summary import Column, bytes_per_token, overall

# From Okabe and Ito's palette, which stays distinct for the color-blind.
_COLORS = {
    "lolama": "#0072B2",
    "eager": "#7F7F7F",
    "transformers": "#D55E00",
    "llama.cpp": "#009E73",
    "ctranslate2": "#AA4499",
}
_INK, _FAINT = "#333333", "#BBBBBB"
_DASHES = ["-", "--", ":"]


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Write every plot that the run has data for; title → file."""
    _prepare(folder)
    found = {}
    for name, title, plot in (
        ("decode", "Decoding speed by peer", _decode),
        ("context", "Time per token against context length", _context),
        ("batch", "Tokens a second of all rows against their number", _batch),
    ):
        figure = plot(results, title)
        if figure is not None:
            path = folder / f"bench-{results.name}-{name}.svg"
            _save(figure, path)
            found[title] = path
    return found


def _prepare(folder: Path) -> None:
    """Have the folder. Text stays text, and the same data give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lolama", "font.size": 10})
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", "sans-serif"]
    folder.mkdir(parents=True, exist_ok=True)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, facecolor="white", metadata={"Date": None})


def draw_quality(result: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write a plot for each model of what `benchmarks.quality` found; title → file."""
    _prepare(folder)
    found = {}
    for name, rows in result["quality"].items():
        title = f"KL divergence against bits ({name})"
        path = folder / f"bench-quality-{name}.svg"
        _save(_quality([row for row in rows if row["linears_alone"]], title), path)
        found[title] = path
    return found


def _axes(title: str, x: str, y: str, height: float = 4.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK)
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _sizes(results: Results, kind: str) -> list[str]:
    found = {size for row in results.rows for size in row.times.get(kind, {})}
    return sorted(found, key=int)


def _decode(results: Results, title: str) -> Any:
    """Bars, the fastest on top."""
    sizes = _sizes(results, "decode")
    rates = [(row, overall(row, Column("", "decode", sizes[0]))) for row in results.rows if sizes]
    shown = sorted(((row, rate) for row, rate in rates if rate), key=lambda pair: pair[1])
    if not shown:
        return None
    figure, axes = _axes(
        f"{title} ({results.name}, context {sizes[0]})", "tokens per second", "", 3.6
    )
    bars = axes.barh(
        [row.label for row, _ in shown],
        [rate for _, rate in shown],
        color=[_COLORS[row.engine] for row, _ in shown],
    )
    axes.bar_label(bars, [f"{rate:,.1f}" for _, rate in shown], padding=3, color=_INK)
    axes.margins(x=0.12)
    _ceiling(axes, results, [row for row, _ in shown if row.item == 2], shown[-1][1])
    return figure


def _ceiling(axes: Any, results: Results, sixteen: list[Row], fastest: float) -> None:
    """How fast 16-bit weights can be read: a line, and a band as wide as the probes differ."""
    context = int(_sizes(results, "decode")[0])
    if not sixteen:
        return
    moved = bytes_per_token(results, sixteen[0], context)
    rates = [probe / moved for probe in results.bandwidth]
    middle = median(rates)
    # The weights of a tiny model stay in the processor's cache; a line far away would say nothing.
    if middle > 2 * fastest:
        return
    axes.axvspan(min(rates), max(rates), color=_FAINT, alpha=0.35, linewidth=0, zorder=0)
    axes.axvline(middle, color=_INK, linestyle="--", linewidth=1)
    # Beside the shortest bar the right of the line is free, given room.
    axes.set_xlim(right=max(axes.get_xlim()[1], 1.4 * middle))
    axes.annotate(
        f"16-bit weights at the\nprobe's bandwidth: {middle:,.1f}",
        (middle, 0),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=_INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _context(results: Results, title: str) -> Any:
    return _lines(
        results,
        "decode",
        f"{title} ({results.name})",
        ("positions in the cache", "milliseconds per token"),
        lambda rate, size: 1000 / rate,
    )


def _batch(results: Results, title: str) -> Any:
    return _lines(
        results,
        "batch",
        f"{title} ({results.name})",
        ("rows that decode together", "tokens per second, all rows"),
        lambda rate, size: rate,
    )


def _lines(results: Results, kind: str, title: str, names: tuple[str, str], figure_of: Any) -> Any:
    """A line for each peer over the sizes of a kind, both axes logarithmic, with its label at the end."""
    sizes = _sizes(results, kind)
    if len(sizes) < 2:
        return None
    figure, axes = _axes(title, *names)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ends: list[tuple[Row, tuple[int, float]]] = []
    for row in results.rows:
        rates = [(int(size), overall(row, Column("", kind, size))) for size in sizes]
        points = [(size, figure_of(rate, size)) for size, rate in rates if rate]
        if points:
            before = sum(row.engine == other.engine for other, _ in ends)
            axes.plot(
                *zip(*points, strict=True),
                color=_COLORS[row.engine],
                linestyle=_DASHES[before % len(_DASHES)],
                linewidth=2.2 if row.engine == "lolama" else 1.4,
                marker="o",
                markersize=4,
            )
            ends.append((row, points[-1]))
    axes.set_xticks([int(size) for size in sizes], sizes)
    axes.minorticks_off()
    _plain_ticks(axes)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5)
    _label_ends(axes, ends, int(sizes[-1]))
    return figure


def _quality(rows: list[dict[str, Any]], title: str) -> Any:
    """A point for each scheme, with its name; those of one program are joined, from bits to bits the best."""
    figure, axes = _axes(
        title, "bits of a weight of the linears inside blocks", "mean KL divergence, nats"
    )
    axes.set_yscale("log")
    for engine in ("lolama", "llama.cpp"):
        mine = [row for row in rows if row["engine"] == engine]
        points = [(row["linear_bits"], row["quantized"]["mean_kl"]) for row in mine]
        best = {bits: min(kl for other, kl in points if other == bits) for bits, _ in points}
        axes.plot(
            *zip(*sorted(best.items()), strict=True),
            color=_COLORS[engine],
            linewidth=2.2 if engine == "lolama" else 1.4,
        )
        axes.plot(*zip(*points, strict=True), "o", color=_COLORS[engine], markersize=5)
        for row, point in zip(mine, points, strict=True):
            # Below the own line is room on the left, above the other's on the right: there labels of one
            # number of bits stand on each other.
            own = engine == "lolama" and point[1] == best[point[0]]
            others = sum(x == point[0] and y < point[1] for x, y in points)
            height = 5 if engine == "lolama" else 5 + 11 * others
            axes.annotate(
                f"{engine} {row['weights']}",
                point,
                xytext=(-6, -6) if own else (6, height),
                textcoords="offset points",
                ha="right" if own else "left",
                va="top" if own else "bottom",
                fontsize=9,
                color=_COLORS[engine],
            )
    axes.margins(x=0.25, y=0.12)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5)
    return figure


def _plain_ticks(axes: Any) -> None:
    """1, 2, 5, 10, … on a logarithmic axis, written out; more of them where the range is narrow."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
    axes.yaxis.set_major_locator(LogLocator(10, subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def spread(values: list[float], gap: float) -> list[float]:
    """Ascending places at least ``gap`` apart, each as near to its ascending value as its cluster allows."""
    clusters: list[tuple[list[float], float]] = []  # values, lowest place
    for value in values:
        members, low = [value], value
        while clusters and clusters[-1][1] + gap * len(clusters[-1][0]) > low:
            members = clusters.pop()[0] + members
            low = sum(members) / len(members) - gap * (len(members) - 1) / 2
        clusters.append((members, low))
    return [low + gap * i for members, low in clusters for i in range(len(members))]


def _label_ends(axes: Any, ends: list[tuple[Row, tuple[int, float]]], right: int) -> None:
    """Labels beside the last points, moved apart where they would overlap."""
    ordered = sorted(ends, key=lambda end: end[1][1])
    low, high = (log(limit) for limit in axes.get_ylim())
    gap = 0.057 * (high - low)  # a line of text
    places = spread([log(value) for _, (_, value) in ordered], gap)
    # Room for the outermost labels, which would else be cut off or reach into the title.
    axes.set_ylim(exp(min(low, places[0] - gap / 2)), exp(max(high, places[-1] + gap / 2)))
    for (row, (size, value)), place in zip(ordered, places, strict=True):
        axes.annotate(
            row.label,
            (size, value),
            xytext=(right * 1.12, exp(place)),
            textcoords="data",
            va="center",
            fontsize=9,
            color=_COLORS[row.engine],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _FAINT, "linewidth": 0.6, "shrinkB": 3},
        )
