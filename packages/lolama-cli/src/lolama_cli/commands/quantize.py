"""``lolama quantize``: a model in, the same in 8-bit integers out."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli.console import Output, note, visible
from lolama_cli.options import Model, Yes
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.quantized import QualityReport, Saved
    from lolama_core.protocols.types import ModelFiles

SCHEMA = "lolama.quantize/1"


def quantize(
    model: Model = "tinyllama",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder to write. Without it the model is kept where generate --quantize finds it.",
            metavar="DIR",
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Measure what it cost in quality (loads both models)."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the int8 model that is there.")
    ] = False,
    lm_head: Annotated[
        bool, typer.Option("--lm-head", help="Quantise the output projection, too.")
    ] = False,
    outliers: Annotated[
        int,
        typer.Option(
            "--outliers",
            help="Input columns of each linear that keep their precision.",
            metavar="N",
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help=f'One JSON object, with "schema": "{SCHEMA}".')
    ] = False,
    yes: Yes = False,
) -> None:
    """Store a model's linear weights as 8-bit integers, about half the size of 16-bit ones.

    Embeddings and the output projection keep their precision. On a terminal a table; into a pipe or file one
    line a fact, its fields separated by tabs.
    """
    if not 0 <= outliers <= 1024:
        raise UsageError("--outliers", f"{outliers} is out of range", "use 0 to 1024")
    stdout = Output()
    from lolama import quantized, wiring

    with transfer_bars() as progress:
        source = wiring.resolve(model, confirm=yes or None, progress=progress)
    options = quantized.Options(lm_head=lm_head, outliers=outliers)
    if output is not None:
        files = quantized.save(source, output, options, force=force)
    elif "quantization" in source.config:
        raise UsageError(source.name, "is quantised already", "use it as it is")
    else:
        files = quantized.keep(source, options, force=force, tell=note)
    saved = quantized.describe(source, files)
    if lm_head and "lm_head" not in saved.replaced:
        note("note: lm_head shares its weight with the embedding, and both keep their precision")
    quality = _measure(source, files) if report else None
    if as_json:
        stdout.write(json.dumps(_as_json(saved, quality), indent=2) + "\n")
    elif stdout.is_terminal:
        _show_table(list(_rows(saved, quality)))
    else:
        for row in _rows(saved, quality):
            stdout.write("\t".join(row) + "\n")


def _measure(source: ModelFiles, files: ModelFiles) -> QualityReport:
    from lolama import wiring
    from lolama.quantized import measure

    dense, small = wiring.load_files(source), wiring.load_files(files)
    wiring.suit_threads(dense)
    return measure(dense, small, wiring.tokenizer_of(source))


def _as_json(saved: Saved, quality: QualityReport | None) -> dict[str, object]:
    facts = {**dataclasses.asdict(saved), "directory": str(saved.directory)}
    return {"schema": SCHEMA, **facts, "quality": None if quality is None else quality.to_json()}


def _rows(saved: Saved, quality: QualityReport | None) -> Iterator[tuple[str, ...]]:
    """What, its value, and beside measures of quality the noise floor."""
    yield "saved in", str(saved.directory)
    yield "int8 linears", f"{len(saved.replaced):,}"
    share = saved.bytes / saved.source_bytes
    yield "weights", f"{saved.bytes / 1e6:,.1f} MB, {share:.2f} of {saved.source_bytes / 1e6:,.1f}"
    if quality is not None:
        yield "compared", f"{quality.tokens:,} tokens", "noise floor"
        yield from quality.rows()


def _show_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, style="dim")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)
