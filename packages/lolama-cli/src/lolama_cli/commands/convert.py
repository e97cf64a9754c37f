"""``lolama convert``: any model → a lolama checkpoint, or a GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, note, visible
from lolama_cli.progress_line import progress_line
from lolama_cli.schemas import CONVERT
from lolama_cli.transfer_bars import transfer_bars

EXAMPLES = """\b
Examples:
  lolama convert demo my-copy
  lolama convert tinyllama my-copy --yes
  lolama convert tinyllama tinyllama.gguf
  lolama convert ./my-model my-model-Q8_0.gguf --outtype q8_0
"""


def convert(
    model: options.ModelArgument,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="The folder to write, or a file for llama.cpp, whose name ends in .gguf.",
        ),
    ],
    outtype: Annotated[
        str | None,
        typer.Option(
            "--outtype",
            help="Weights of a file: f32, f16, bf16 or q8_0. Else the model's 16 bits.",
            metavar="TYPE",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, or the lolama checkpoint, there.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Write a model as a lolama checkpoint, or as a GGUF file.

    A checkpoint is one folder that lolama-core alone can read, bit for bit the same weights. A GGUF file is
    for llama.cpp and its kin. Its weights have one type, by default 16 bits as in the model, and its norms
    and biases are float32.
    """
    payload = Output()
    from lolama.convert import convert as write

    with transfer_bars() as progress, progress_line("writing") as steps:
        write(
            model,
            output,
            outtype=outtype,
            force=force,
            confirm=yes or None,
            progress=progress,
            tell=note,
            steps=steps,
        )
    if as_json:
        CONVERT.write(payload, {"model": model, "directory": str(output)})
    else:
        payload.write(visible(str(output)) + "\n")
