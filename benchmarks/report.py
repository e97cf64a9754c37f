"""Puts what was measured into docs/benchmarks.md: between its marks, and as plots beside it.

    python -m benchmarks.report results/*.json

A part of the page between ``<!-- table: tinyllama -->`` and ``<!-- end -->`` is replaced; what is not
marked stays. The parts are ``setup``, ``table``, ``ratios`` and ``plots``, each with the name of a run:
a shape and its weights, or what it was ``--named``; ``gpu`` with a shape, of what `benchmarks.gpu`
measured; and ``quality`` and ``start``, of what `benchmarks.quality` and `benchmarks.start` did.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu_tables import gpu_tables
from benchmarks.plots import draw, draw_quality
from benchmarks.results import read_results
from benchmarks.tables import figures, quality_tables, ratio_tables, setup, start_table

ROOT = Path(__file__).resolve().parents[1]


def fill(page: str, part: str, text: str) -> str:
    """The page with ``text`` between the marks of ``part``.

    Raises:
        ValueError: if the page does not have these marks once.
    """
    pattern = re.compile(rf"(<!-- {re.escape(part)} -->\n).*?(<!-- end -->)", re.DOTALL)
    # A function, since a text could hold what a replacement string takes for a group.
    page, count = pattern.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has the mark <!-- {part} --> {count} times, not once")
    return page


def _links(plots: Mapping[str, Path], page: Path) -> str:
    """Title → file, as pictures of the page."""
    return "\n\n".join(
        f"![{title}]({os.path.relpath(file, page.parent)})" for title, file in plots.items()
    )


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", help="what benchmarks.run wrote")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    page, images = arguments.page.read_text(), arguments.page.parent / "images"
    seen: set[str] = set()
    for path in arguments.results:
        raw = json.loads(path.read_text())
        if "bandwidth" in raw and "device" in raw:
            page = fill(page, f"gpu: {raw['shape']}", gpu_tables(raw))
            continue
        if "quality" in raw:
            links = _links(draw_quality(raw, images), arguments.page)
            page = fill(page, "quality", f"{quality_tables(raw)}\n\n{links}")
            continue
        if "starts" in raw:
            page = fill(page, "start", start_table(raw))
            continue
        if "cases" in raw:  # what docs/families.md is made of
            continue
        results = read_results(path)
        if results.name in seen:
            parser.error(f"{path}: a second run of {results.name}; ratios hold within one")
        seen.add(results.name)
        parts = {
            "setup": setup(results),
            "table": figures(results),
            "ratios": ratio_tables(results),
            "plots": _links(draw(results, images), arguments.page),
        }
        for name, text in parts.items():
            page = fill(page, f"{name}: {results.name}", text)
    arguments.page.write_text(page)


if __name__ == "__main__":
    main()
