"""The command line: global options and the commands."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lolama import __version__
from lolama_cli import defaults
from lolama_cli.command_group import CommandGroup, CommandsOnUse, built
from lolama_cli.console import closed_stdout, note, stdout_failed
from lolama_cli.errors import Settings
from lolama_cli.path_parameters import refuse_empty_path
from lolama_cli.plain_values import read_plain_values
from lolama_cli.quantize_option import completed
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from typer.core import TyperGroup

EXAMPLES = """\b
Examples:
  lolama generate -m demo "Once upon a time"
  lolama chat -m demo
  lolama models
  lolama generate --help
"""

app = typer.Typer(
    name="lolama",
    cls=CommandGroup,
    help="Run LLaMA-family language models: from scratch, in readable PyTorch.",
    epilog=EXAMPLES,
    rich_markup_mode=None,  # half the start-up time, and plain text to everyone who reads it,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_EVERYWHERE = ("verbose", "debug")
"""Options that may stand before a command or behind it."""

COMPLETE = "_LOLAMA_COMPLETE"
"""The variable by which a shell asks what could follow; typer's scripts for shells set it."""


def root_command() -> TyperGroup:
    """The command ``lolama``, with all others. Each of them is made when it is first asked for."""
    root = cast("TyperGroup", typer.main.get_command(app))
    everywhere = [option for option in root.params if option.name in _EVERYWHERE]

    def prepared(name: str) -> Any:
        command = built(name)
        _prepare(command, everywhere)
        return command

    read_plain_values(root)
    root.commands = CommandsOnUse(prepared)  # type: ignore[assignment] # nobody adds to it
    return root


def _prepare(command: Any, everywhere: Sequence[Any]) -> None:
    """Give a command, and those below it, what all commands have."""
    for parameter in command.params:
        refuse_empty_path(parameter)
    command.params += everywhere
    read_plain_values(command)
    _prepare_parsing(command)
    for below in getattr(command, "commands", {}).values():
        _prepare(below, everywhere)


def _prepare_parsing(command: Any) -> None:
    """Complete ``--quantize``, and let errors about an option without its value know their command."""
    parse = command.parse_args

    def parse_args(context: typer.Context, arguments: list[str]) -> list[str]:
        try:
            return cast("list[str]", parse(context, completed(arguments, command.params)))
        except typer.TyperException as error:
            if getattr(error, "ctx", None) is None:
                vars(error)["ctx"] = context
            raise

    command.parse_args = parse_args


def run(arguments: list[str], settings: Settings) -> int:
    """Run one command line.

    Args:
        arguments: What stands behind the program's name.
        settings: Receives the options that every command takes.

    Raises:
        LolamaError: and much else; `errors.report` knows what to say.
    """
    if sys.stdout is None:
        raise closed_stdout()
    settings.arguments = arguments
    warnings.simplefilter("ignore")  # standard error is for the user, not for libraries
    command = root_command()
    try:
        if os.environ.get(COMPLETE):
            command.main(arguments, prog_name="lolama")  # answers, and exits
        # Not command.main(), which reports errors its own way.
        with command.make_context("lolama", arguments, obj=settings) as context:
            command.invoke(context)
    except typer.Exit as done:
        if done.exit_code:
            return done.exit_code
    except SystemExit as done:  # how typer ends once it has dealt with completion
        return int(done.code or 0)
    except OSError as error:
        # What a command writes it guards itself; help and version are printed by typer.
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC):
            raise stdout_failed(error) from None
        raise
    try:
        sys.stdout.flush()
    except OSError as error:
        raise stdout_failed(error) from None
    return 0


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lolama {__version__}")
        raise typer.Exit


def _tell_more(context: typer.Context, option: typer.CallbackParam, asked: bool) -> None:
    settings: Settings = context.obj
    if not asked:
        return
    settings.verbose = True
    if option.name == "debug":
        settings.debug = True
        warnings.simplefilter("default")


@app.callback(invoke_without_command=True)
def _global_options(
    context: typer.Context,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            help="Show model loading details and speed.",
            callback=_tell_more,
            is_eager=True,  # before what may fail
            expose_value=False,
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Show all that, warnings and tracebacks.",
            callback=_tell_more,
            is_eager=True,
            expose_value=False,
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", help="Show the version.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    settings: Settings = context.obj
    if context.invoked_subcommand is None:
        raise UsageError("lolama", "no command given", "see lolama --help")
    for name, meant in defaults.misspelled_variables().items():
        note(f"note: {name} sets nothing; did you mean {meant}?")
    _set_defaults(context, settings)


def _set_defaults(context: typer.Context, settings: Settings) -> None:
    """Give the command the defaults that the user set, and remember where they come from."""
    group = cast("TyperGroup", context.command)
    command = group.commands.get(str(context.invoked_subcommand))
    if command is None:
        return
    try:
        values, origins = defaults.apply(command.params)
    except UsageError:
        if {"-h", "--help"}.isdisjoint(settings.arguments):
            raise
        return  # whoever asks for help gets it
    context.default_map = {str(command.name): values}
    for parameter in command.params:
        given = any(
            _names(argument, name) for argument in settings.arguments for name in parameter.opts
        )
        for name in parameter.opts:
            if name in origins and not given:
                settings.origins[name] = origins[name]
    if "--model" in settings.origins:
        settings.default_model = str(values["model"])


def _names(argument: str, option: str) -> bool:
    """Whether ``argument`` gives ``option``: --top-p, --top-p=1, -mdemo."""
    if option.startswith("--"):
        return argument == option or argument.startswith(f"{option}=")
    return argument.startswith(option)
