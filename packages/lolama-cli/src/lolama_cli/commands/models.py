"""``lolama models``: the names that ``-m`` takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lolama_cli.console import Output, note, visible

if TYPE_CHECKING:
    from lolama_core.protocols.types import ModelInfo


def models() -> None:
    """List available model aliases.

    On a terminal a table; into a pipe or file one line a model, its fields separated by tabs.
    """
    from lolama import wiring

    output = Output()
    known = wiring.known_models()
    if not output.is_terminal:
        for row in [("alias", "parameters", "kind", "description", "id"), *map(_fields, known)]:
            output.write("\t".join(row) + "\n")
        return
    _show_table(known)
    note("Or give -m the path of a model's folder. This version does not download yet.")


def _fields(model: ModelInfo) -> tuple[str, ...]:
    return (model.alias, model.parameters, model.kind, model.description, model.repo)


def _show_table(known: Sequence[ModelInfo]) -> None:
    """In 80 columns: the id stands under the description."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("alias", style="bold", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("description, Hugging Face id", overflow="fold")
    for model in known:
        about = Text(visible(model.description))
        if model.repo:
            about.append("\n" + visible(model.repo), style="dim")
        table.add_row(Text(visible(model.alias)), Text(model.parameters), Text(model.kind), about)
    Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)
