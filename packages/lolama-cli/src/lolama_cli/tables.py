"""Facts in columns: on a terminal a table, into a pipe or file one line a fact, separated by tabs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from lolama_cli.console import Output, visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


_GAP = 2
"""Columns between two facts of a row."""


def write_facts(
    output: Output, rows: Iterable[Sequence[str]], *, header: Sequence[str] = ()
) -> None:
    """Write rows of equal or falling length.

    Args:
        output: Where to.
        rows: What, its value, and what else there is to say.
        header: Names of the columns, for programs: they stand in the first line of a pipe.
    """
    if output.is_terminal:
        _print_facts(rows)
        return
    for row in (header, *rows) if header else rows:
        # Byte for byte, save what would begin another column or line.
        output.write("\t".join(re.sub(r"[\t\n]", " ", cell) for cell in row) + "\n")


def write_sections(output: Output, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write (section, name, value); on a terminal a section's name stands before its first fact alone."""
    if not output.is_terminal:
        write_facts(output, rows, header=("section", "name", "value"))
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for section, name, value in rows:
        if section != last and last is not None:
            table.add_row()
        table.add_row(section if section != last else "", cell(name), cell(value))
        last = section
    print_table(table)


def cell(text: str) -> Text:
    """``text`` that nothing in it can style, in characters that the terminal has."""
    from rich.text import Text

    encoding = sys.stdout.encoding
    return Text(visible(text).encode(encoding, errors="replace").decode(encoding))


def print_table(table: Table) -> None:
    """Draw it on standard output."""
    from rich.console import Console

    Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)


def _print_facts(rows: Iterable[Sequence[str]]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    cells = [[cell(text) for text in row] for row in rows]
    names = max((cell_len(row[0].plain) for row in cells), default=0)
    room = console.width - names - _GAP
    # A path is broken by the terminal, which joins it again when it is copied.
    for unbreakable, group in groupby(
        cells, lambda row: len(row) == 2 and _is_longer(row[1], room)
    ):
        if not unbreakable:
            print_table(_facts(group, names))
            continue
        for name, value in group:
            name.stylize("bold")
            name.pad_right(names + _GAP - cell_len(name.plain))
            console.print(Text.assemble(name, value), soft_wrap=True)


def _is_longer(text: Text, room: int) -> bool:
    """Whether a word of it needs more columns than that."""
    from rich.cells import cell_len

    return any(cell_len(word) > room for word in text.plain.split())


def _facts(rows: Iterable[Sequence[Text]], names: int) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="bold", no_wrap=True, min_width=names)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
