"""``lolama rm``: delete a model that was downloaded."""

from __future__ import annotations

from typing import Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output, note
from lolama_cli.schemas import RM

EXAMPLES = """\b
Examples:
  lolama rm tinyllama
  lolama rm owner/name --json
"""


def _removable(incomplete: str) -> list[str]:
    """What is downloaded, or kept in 8 or 4 bits, by its alias if it has one."""
    from lolama import downloads, kept, names

    aliases = {info.repo.partition("@")[0]: info.alias for info in names.known_models()}
    stored = {model.repo for model in downloads.stored_models() if not model.shared}
    stored |= {model.source for model in kept.kept_models()}
    found = sorted(aliases.get(repo, repo) for repo in stored)
    return [name for name in found if name.startswith(incomplete)]


def rm(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An alias, owner/name[@revision], or a folder.",
            autocompletion=_removable,
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Delete a downloaded model, and what was converted from it.

    Of a built-in model, or a folder of your own, the quantized models that --quantize keeps.
    """
    from lolama import downloads, removal

    output = Output() if as_json else None
    freed = removal.remove(model)
    if output is not None:
        RM.write(output, {"model": model, "freed_bytes": freed})
    else:
        note(f"{downloads.size_text(freed)} freed")
