"""The table of commands: what it says is what the commands say, and only the one that is run is made."""

from __future__ import annotations

import subprocess
import sys
from pkgutil import iter_modules
from typing import Any

import pytest
from typer import Context

import lolama_cli.commands
from lolama_cli.app import root_command
from lolama_cli.command_group import COMMANDS, CommandGroup, CommandsOnUse


def test_every_module_of_commands_is_in_the_table() -> None:
    assert {module.name for module in iter_modules(lolama_cli.commands.__path__)} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_is_what_the_help_of_the_command_begins_with(name: str) -> None:
    group: Any = root_command()
    assert isinstance(group, CommandGroup)
    line = group.get_command(Context(group), name)
    command = group.commands[name]
    assert command.name == line.name == name
    for width in (20, 45, 60, 100):
        assert line.get_short_help_str(width) == command.get_short_help_str(width)


def test_a_command_is_made_once_and_only_when_it_is_looked_up() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    commands = CommandsOnUse(make)
    assert list(commands) == list(COMMANDS) and len(commands) == len(COMMANDS)
    assert not made
    assert commands["gc"] == commands["gc"] == commands.get("gc") == "GC"
    assert commands.get("list") is None
    assert made == ["gc"]


def test_one_command_does_not_import_the_others() -> None:
    code = (
        "import sys; from lolama_cli.app import root_command as r; r().commands['gc'];"
        "print(*[m for m in sys.modules if m.startswith('lolama_cli.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lolama_cli.commands.gc"]
