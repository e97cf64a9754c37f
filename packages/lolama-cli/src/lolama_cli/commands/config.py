"""``lolama config``: the defaults of options."""

from __future__ import annotations

import os
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import defaults, options
from lolama_cli.commands.generate import generate
from lolama_cli.console import Output, visible
from lolama_cli.defaults import KEYS, Value
from lolama_cli.schemas import CONFIG
from lolama_cli.tables import write_facts
from lolama_core.protocols.errors import ResourceError, UsageError
from lolama_core.protocols.utf8 import is_unicode
from lolama_core.protocols.whole_file import write_whole

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

EXAMPLES = """\b
Examples:
  lolama config set model demo
  lolama config set max-tokens 100
  lolama config show
  lolama config unset model
  LOLAMA_TEMPERATURE=0 lolama generate "The capital of France is"
"""

app = typer.Typer(
    help="""Set the defaults of options.

    An option on the command line comes first, then the environment (LOLAMA_MAX_TOKENS for --max-tokens), then
    the file that this command writes, then what the program says.
    """,
    rich_markup_mode=None,
    epilog=EXAMPLES,
)


def _keys(incomplete: str) -> list[str]:
    return [name for name in KEYS if name.startswith(incomplete)]


_KeyArgument = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="An option's long name, without the dashes.",
        autocompletion=_keys,
    ),
]


@app.command()
def show(as_json: options.Json = False) -> None:
    """Show every default and where it comes from: environment, file or program."""
    output = Output()
    effective = _effective()
    if as_json:
        _write_json(output, effective)
        return
    rows = (
        (name, "" if value is None else _spelled(value), origin)
        for name, (value, origin) in effective.items()
    )
    write_facts(output, rows, header=("key", "value", "from"))


@app.command()
def get(key: _KeyArgument, as_json: options.Json = False) -> None:
    """Write the default that is in force; nothing if there is none."""
    output = Output()
    name = defaults.key_of(key).name
    effective = _effective()
    if as_json:
        _write_json(output, {name: effective[name]})
    elif effective[name][0] is not None:
        output.write(_spelled(effective[name][0]) + "\n")


@app.command("set")
def set_(
    key: _KeyArgument,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its new default.")],
    as_json: options.Json = False,
) -> None:
    """Set a default in the file."""
    output = Output()
    found = defaults.key_of(key)
    parsed = found.parse(value, "config")
    if isinstance(parsed, str) and not is_unicode(parsed):
        reason = (
            f"{found.name} is {parsed!r:.80}, which is not UTF-8, and the file holds nothing else"
        )
        raise UsageError("config", reason, f"set the variable {found.variable} instead")
    document = _document()
    document[found.name] = parsed
    _save(document)
    if as_json:
        _write_json(output, _effective())


@app.command()
def unset(key: _KeyArgument, as_json: options.Json = False) -> None:
    """Remove a default from the file. Not an error if it is not there."""
    output = Output()
    document = _document()
    if key not in document:  # one that is there may be removed whatever it is called
        defaults.key_of(key)
    elif document.pop(key) is not None:
        _save(document)
    if as_json:
        _write_json(output, _effective())


@app.command("path")
def path_(as_json: options.Json = False) -> None:
    """Write where the file is, or would be: LOLAMA_CONFIG names another."""
    output = Output()
    if as_json:
        _write_json(output, {})
    else:
        output.write(visible(str(defaults.path())) + "\n")


def _effective() -> dict[str, tuple[Value | None, str]]:
    """Key → the default in force, and what it comes from."""
    program = signature(generate).parameters
    in_file, in_environment = defaults.of_file(), defaults.of_environment()
    effective: dict[str, tuple[Value | None, str]] = {}
    for name, key in KEYS.items():
        if name in in_environment:
            effective[name] = in_environment[name], key.variable
        elif name in in_file:
            effective[name] = in_file[name], "file"
        else:
            effective[name] = program[key.parameter].default, "program"
    return effective


def _write_json(output: Output, effective: dict[str, tuple[Value | None, str]]) -> None:
    settings = {
        name: {"value": value, "from": origin} for name, (value, origin) in effective.items()
    }
    CONFIG.write(output, {"path": str(defaults.path()), "settings": settings})


def _spelled(value: Value | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document() -> TOMLDocument:
    """The file as it is written, comments and all."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(defaults.text_of_file())
    except (TOMLKitError, RecursionError) as error:
        reason = f"is not valid TOML: {str(error)[:150]}"
        raise UsageError(str(defaults.path()), reason, "correct or remove it") from None


def _save(document: TOMLDocument) -> None:
    """Write the file in one step: there is the old one or the new one."""
    import tomlkit

    file = defaults.path()
    if file.is_symlink():  # a dotfile kept elsewhere stays where it is
        file = Path(os.path.realpath(file))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, tomlkit.dumps(document).encode())
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise ResourceError(str(file), reason, "set LOLAMA_CONFIG to another file") from None
