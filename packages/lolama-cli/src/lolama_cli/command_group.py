"""The commands of ``lolama``: a table, and each made and imported only when it is asked for.

Help and completion need a line about each. Whoever runs one command does not wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "generate": "Generate text from a prompt.",
    "chat": "Talk with a model.",
    "models": "List the models that have a name, and what is downloaded.",
    "info": "Show what a model is, and the memory it needs.",
    "pull": "Download a model, or go on where a download stopped.",
    "rm": "Delete a downloaded model, and what was converted from it.",
    "gc": "Delete what no command will use again.",
    "convert": "Write a model as a lolama checkpoint, or as a GGUF file.",
    "quantize": "Store a model's linear weights as integers of 8 or 4 bits.",
    "bench": "Measure how fast a model runs here.",
    "eval": "Measure how well a model predicts a text.",
    "serve": "Serve models over HTTP, to the clients of OpenAI, Anthropic, ollama and llama.cpp.",
    "doctor": "Show what is installed and in use, and why not the rest.",
    "config": "Set the defaults of options.",
}
"""Name of a command, and of its module in `lolama_cli.commands` → the first sentence of its help."""

_IN_SECTIONS = ("generate", "chat", "serve")
"""Commands with so many options that their help has sections."""


class CommandsOnUse(Mapping[str, Any]):
    """The commands by their names, each made when it is first looked up.

    Args:
        make: Makes the command of a name.
    """

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in COMMANDS:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class CommandGroup(TyperGroup):
    """The command ``lolama``: it makes the command that is run, and of the others only a line."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = CommandsOnUse(built)  # type: ignore[assignment] # nobody adds to it

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help and completion tell of a command: its name and its line."""
        line = COMMANDS.get(cmd_name)
        return None if line is None else TyperCommand(cmd_name, help=line)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name, its name, and the arguments behind it."""
        name, line, rest = super().resolve_command(ctx, args)
        return name, line and self.commands[str(name)], rest


def built(name: str) -> Any:
    """The command of that name, its module imported."""
    module: Any = import_module(f"lolama_cli.commands.{name}")
    holder = typer.Typer(rich_markup_mode=None)
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name)
    else:
        kind = CommandInSections if name in _IN_SECTIONS else TyperCommand
        holder.command(name, epilog=module.EXAMPLES, cls=kind)(getattr(module, name))
    return typer.main.get_group(holder).commands[name]


class CommandInSections(TyperCommand):
    """A command whose help has a section for each panel of its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write them, those of no panel first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
