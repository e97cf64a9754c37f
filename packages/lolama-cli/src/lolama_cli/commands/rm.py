"""``lolama rm``: delete a model that was downloaded."""

from __future__ import annotations

from typing import Annotated

import typer

from lolama_cli.console import note


def rm(
    model: Annotated[str, typer.Argument(help="An alias, or owner/name[@revision].")],
) -> None:
    """Delete a downloaded model, and what was converted from it."""
    from lolama import downloads

    note(f"{downloads.size_text(downloads.remove(model))} freed")
