"""``lolama pull``: fetch a model now."""

from __future__ import annotations

from typing import Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, visible
from lolama_cli.schemas import PULL
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError

EXAMPLES = """\b
Examples:
  lolama pull tinyllama
  lolama pull owner/name@revision --yes
"""


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An alias, or owner/name[:label][@revision] of the Hugging Face Hub.",
            autocompletion=options.model_names,
        ),
    ],
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Download a model, or go on where a download stopped.

    The size is shown and has to be agreed to. Every file is verified before the model can be used. Standard
    output is the folder that holds it.
    """
    from lolama import downloads, names

    output = Output()
    if model in names.builtin_models():
        raise UsageError(model, "is built in", "there is nothing to download")
    with transfer_bars() as progress:
        directory = downloads.fetch(model, confirm=yes or None, progress=progress)
    if as_json:
        PULL.write(output, {"model": model, "directory": str(directory)})
    else:
        output.write(visible(str(directory)) + "\n")
