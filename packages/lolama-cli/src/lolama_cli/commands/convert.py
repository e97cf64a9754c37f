"""``lolama convert``: any model → a lolama checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, visible
from lolama_cli.progress_line import progress_line
from lolama_cli.schemas import CONVERT
from lolama_cli.transfer_bars import transfer_bars

EXAMPLES = """\b
Examples:
  lolama convert demo my-copy
  lolama convert tinyllama my-copy --yes
"""


def convert(
    model: options.ModelArgument,
    output: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write. It must not exist.")
    ],
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Write a model as a lolama checkpoint.

    One folder that lolama-core alone can read, bit for bit the same weights.
    """
    payload = Output()
    from lolama.convert import convert as write

    with transfer_bars() as progress, progress_line("writing") as steps:
        write(model, output, confirm=yes or None, progress=progress, steps=steps)
    if as_json:
        CONVERT.write(payload, {"model": model, "directory": str(output)})
    else:
        payload.write(visible(str(output)) + "\n")
