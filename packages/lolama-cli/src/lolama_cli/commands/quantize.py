"""``lolama quantize``: a model in, the same in integers of 8 or 4 bits out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, note, progress
from lolama_cli.progress_line import progress_line
from lolama_cli.schemas import QUANTIZE
from lolama_cli.tables import write_facts
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.quantize import QualityReport, Saved
    from lolama_core.protocols.types import ModelFiles

_MOST_BYTES = 16_000_000

EXAMPLES = """\b
Examples:
  lolama quantize -m demo -o demo-int8 --report
  lolama quantize -m tinyllama
  lolama quantize -m tinyllama --bits 4 -o tinyllama-int4
  lolama quantize -m ./my-model -o smaller --lm-head --outliers 16
"""


def quantize(
    model: options.Model = "tinyllama",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder to write. Without it the model is kept for generate --quantize.",
            metavar="DIR",
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Measure what it cost in quality (loads both models)."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the quantized model that is there.")
    ] = False,
    bits: Annotated[
        int,
        typer.Option("--bits", help="8, or 4, which are fitted to text.", metavar="N"),
    ] = 8,
    no_calibration: Annotated[
        bool,
        typer.Option("--no-calibration", help="With 4 bits: fit them to no text. That is quick."),
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="With 4 bits: a text to fit them to. Without it the model writes one itself.",
            metavar="FILE",
        ),
    ] = None,
    lm_head: Annotated[
        bool,
        typer.Option(
            "--lm-head",
            help="The output projection gets 8 bits, too; with 4 bits it usually does.",
        ),
    ] = False,
    embedding_bits: Annotated[
        int | None,
        typer.Option(
            "--embedding-bits",
            help="With 4 bits: what embeddings get, 4 or 16. Usually 4.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    lm_head_bits: Annotated[
        int | None,
        typer.Option(
            "--lm-head-bits",
            help="With 4 bits: what the output projection gets, 4 (less true), 8 or 16. Usually 8.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    outliers: Annotated[
        int,
        typer.Option(
            "--outliers",
            help="Input columns of each linear that keep their precision.",
            metavar="N",
        ),
    ] = 0,
    as_json: options.Json = False,
    yes: options.Yes = False,
) -> None:
    """Store a model's linear weights as integers of 8 or 4 bits.

    With 8 that is about half the size of 16-bit ones. Embeddings and the output projection keep their
    precision. With 4 it is about a third; embeddings get 4 bits, too, and the output projection 8. The
    weights are fitted to text block by block, in the memory of one: that takes minutes for each billion of
    weights. After Ctrl-C the same command goes on where it was. Of a GGUF file only those are quantized that
    have 16 bits here, such as Q5_K's, and fitted to no text. On a terminal a table; into a pipe or file one
    line a fact, its fields separated by tabs.
    """
    if bits not in (4, 8):
        raise UsageError("--bits", f"{bits} is neither 8 nor 4", "use one of them")
    if bits == 4 and outliers:
        raise UsageError("--outliers", "is for 8 bits", "leave it out, or leave out `--bits 4`")
    asked = {
        "--no-calibration": no_calibration,
        "--calibrate": calibrate is not None,
        "--embedding-bits": embedding_bits is not None,
        "--lm-head-bits": lm_head_bits is not None,
    }
    for name in (name for name, given in asked.items() if given and bits == 8):
        raise UsageError(name, "is for 4 bits", "leave it out, or add `--bits 4`")
    if lm_head and lm_head_bits is not None:
        raise UsageError("--lm-head-bits", "does not go with --lm-head", "leave out one of them")
    if no_calibration and calibrate is not None:
        raise UsageError(
            "--calibrate", "does not go with --no-calibration", "leave out one of them"
        )
    text = None
    if calibrate is not None:
        text = options.read_text(calibrate, "give a text file", _MOST_BYTES)
    if not 0 <= outliers <= 1024:
        raise UsageError("--outliers", f"{outliers} is out of range", "use 0 to 1024")
    stdout = Output()
    from lolama import names
    from lolama.quantize import Options, describe, keep, save
    from lolama.quantize_options import EMBEDDING_BITS, LM_HEAD_BITS
    from lolama.requantize import about

    chosen = Options(
        bits=bits,
        lm_head=lm_head,
        embedding_bits=EMBEDDING_BITS[0] if embedding_bits is None else embedding_bits,
        lm_head_bits=LM_HEAD_BITS[0] if lm_head_bits is None else lm_head_bits,
        outliers=outliers,
        calibration=not no_calibration,
        text=text,
    )
    with transfer_bars() as bars:
        source = names.resolve(model, confirm=yes or None, progress=bars)
    if output is None and chosen.is_done(source):
        raise UsageError(source.name, "is quantized already", "use it as it is")
    if "quantization" in source.config and (outliers or text is not None):
        name = "--outliers" if outliers else "--calibrate"
        raise UsageError(name, "is for models of 16 bits", "leave it out")
    if left := chosen.left(source):
        note(about(source, left))
    with progress_line("quantizing") as steps:
        if output is not None:
            files = save(source, output, chosen, force=force, tell=note, steps=steps)
        else:
            files = keep(source, chosen, force=force, tell=note, steps=steps)
    saved = describe(source, files)
    if output is None and not chosen.are_usual:
        used = f"these are used by -m {saved.directory}"
        note(f"--quantize uses {bits} bits as they usually are; {used}")
    quality = _measure(source, files) if report else None
    if as_json:
        QUANTIZE.write(stdout, _as_json(saved, quality, bits))
    else:
        what = "int8 linears" if bits == 8 else "layers of 4 bits"
        if bits == 4 and chosen.lm_head_bits == 8:
            what = "layers of 4 and 8 bits"
        write_facts(stdout, _rows(saved, quality, what))


def _measure(source: ModelFiles, files: ModelFiles) -> QualityReport:
    from lolama import wiring
    from lolama.quantize import measure

    with progress("loading both models"):
        dense, small = wiring.load_files(source), wiring.load_files(files)
    wiring.suit_threads(dense)
    with progress_line("comparing") as steps:
        return measure(dense, small, wiring.tokenizer_of(source), steps=steps)


def _as_json(saved: Saved, quality: QualityReport | None, bits: int) -> dict[str, object]:
    facts = {**dataclasses.asdict(saved), "directory": str(saved.directory), "bits": bits}
    return {**facts, "quality": None if quality is None else quality.to_json()}


def _rows(saved: Saved, quality: QualityReport | None, what: str) -> Iterator[tuple[str, ...]]:
    """What, its value, and beside measures of quality the noise floor."""
    yield "saved in", str(saved.directory)
    yield what, f"{len(saved.replaced):,}"
    share = saved.bytes / saved.source_bytes
    yield "weights", f"{saved.bytes / 1e6:,.1f} MB, {share:.2f} of {saved.source_bytes / 1e6:,.1f}"
    if quality is not None:
        yield "compared", f"{quality.tokens:,} tokens", "noise floor"
        yield from quality.rows()
